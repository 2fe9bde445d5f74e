"""FilesCache: the digests of a tree's files at its last import. Files that look unchanged are not read again.

A file is taken to be unchanged while its inode, size, and times of modification and of change are what they were. On writable file
systems of _WATCHED, the kernel sets the time of change whenever the contents, or any of the others, change. No program can set it
back. borg and restic go by the same, anywhere. Elsewhere nothing is remembered: an image that is mounted to be read may be another
one tomorrow, with the same times, and the clock of a network file system is not ours. What was changed less than _FRESH before it
was read is not remembered either: another change might have come within the same tick of the clock. Two kinds of changes stay
unseen. A program may go on to write through a memory map: the kernel sets the times when it begins to. And somebody may write to
the device below the file system.

There is a cache file for the root of each tree. It holds a magic and the BLAKE3 digest of the rest. Then each file has u64 inode,
u64 size, i64 and i64 nanoseconds of modification and change, and 32 bytes digest. Numbers are little-endian. A damaged one counts
as empty.
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from tvix_store.model.digest import Digest

_MAGIC = b"tvix-store files 1\n"
_STATUS = struct.Struct("<QQqq")
_ENTRY = struct.Struct("<32s32s")
_FRESH = 2_000_000_000
"""Nanoseconds: what the coarsest clock of a file system, FAT's, ticks."""
_WATCHED = {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"}
_MOUNTS = Path("/proc/self/mountinfo")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_KEPT = 64
"""Cache files that are kept; those that were not used for longest go."""
_FEWEST = 64
"""Files of a tree that is worth remembering."""


class FilesCache:
    """The cache in `directory` for the tree at `root`, as it was left by the last `save`; without `lookup`, knowing nothing yet."""

    def __init__(self, directory: Path, root: Path, *, lookup: bool = True) -> None:
        self._directory = directory
        self._begun = time.time_ns()
        self._device: int | None = None
        """Of the file system whose files are remembered."""
        self._path: Path | None = None
        self._known: dict[bytes, bytes] = {}
        with suppress(OSError):
            device = os.lstat(root).st_dev
            mount = _mount(device)
            if mount is None:
                return
            self._device = device
            # A mount is the same one until the machine is started again.
            key = b"\0".join((os.fsencode(os.path.abspath(root)), str(device).encode(), mount, _BOOT.read_bytes()))
            self._path = directory / blake3(key).hexdigest(16)
            if lookup:
                self._known = _parse(_read_own(self._path))

    def __bool__(self) -> bool:
        return bool(self._known)

    def forget(self) -> None:
        """Know nothing."""
        self._known = {}

    def key(self, status: os.stat_result) -> bytes | None:
        """What a file is known by; None where it should not be: on another file system, or just changed."""
        if status.st_dev != self._device or max(status.st_mtime_ns, status.st_ctime_ns) > self._begun - _FRESH:
            return None
        return _STATUS.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def digest(self, key: bytes | None) -> Digest | None:
        """The digest of the contents of a file that is known."""
        raw = self._known.get(key) if key is not None else None
        return None if raw is None else Digest(raw)

    def save(self, keys: Sequence[bytes | None], digests: Iterable[Digest]) -> None:
        """Remember the contents of these files, and no others of the tree. Where that cannot be written, nothing is remembered."""
        entries = b"".join(key + digest.raw for key, digest in zip(keys, digests, strict=True) if key is not None)
        if self._path is None or len(keys) < _FEWEST or not entries:
            return
        unfinished = self._directory / f".{secrets.token_hex(8)}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(_MAGIC + blake3(entries).digest() + entries)
            unfinished.rename(self._path)
            self._forget_others()
        except OSError:
            with suppress(OSError):
                unfinished.unlink()

    def _forget_others(self) -> None:
        files = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-_KEPT]:
            path.unlink(missing_ok=True)


def _mount(device: int) -> bytes | None:
    """What identifies the mount of a device on this machine, if the kernel watches all changes of its files.

    Source of the format: proc_pid_mountinfo(5).
    """
    name = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in _MOUNTS.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        number, _, mounted, _, _, options, *_ = before.split(b" ")
        kind, _, super_options = after.split(b" ", 2)
        if mounted == name:
            is_written = b"rw" in options.split(b",") and b"rw" in super_options.split(b",")
            return number if is_written and kind.decode() in _WATCHED else None
    return None


def _read_own(path: Path) -> bytes:
    """The content of a cache file that this user has written. Files of others are not trusted."""
    with path.open("rb") as file:
        return file.read() if os.fstat(file.fileno()).st_uid == os.geteuid() else b""


def _parse(data: bytes) -> dict[bytes, bytes]:
    start = len(_MAGIC) + 32
    entries = memoryview(data)[start:]
    if not data.startswith(_MAGIC) or blake3(entries).digest() != data[len(_MAGIC) : start] or len(entries) % _ENTRY.size:
        return {}
    return dict(_ENTRY.iter_unpack(entries))

"""SimulatedDisk: a Durability that syncs nothing, and knows what a power cut would leave: of contents, of names and of the index.

What was synced is kept in a directory of its own, so that several processes can use one disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.backends.local.store_files import let_another_boot_follow
from tvix_store.backends.local.checkpoint import FILE as CHECKPOINT
from tvix_store.backends.local.durability import Durability

PAGE = 4096


class SimulatedDisk:
    """What is on the disk itself. Call it with the directory of a store to get its Durability."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        kept.mkdir(exist_ok=True)
        self.syncs = 0

    def __call__(self, store: Path) -> Durability:
        return _Simulated(store, self)

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Let nobody sync meanwhile."""
        fd = os.open(self._kept, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def unsynced(self, store: Path) -> set[str]:
        """The files below a directory whose bytes or names a power cut may take, or bring back; but for locks, which have none."""
        with self.alone():
            return {each for each in self._unsynced(store, "") if "lock" not in each}

    def _unsynced(self, directory: Path, prefix: str) -> Iterator[str]:
        now = {entry.name: entry.inode() for entry in os.scandir(directory)}
        synced = self._synced_names(directory)
        yield from (prefix + name for name in {*now, *synced} if now.get(name) != synced.get(name))
        for name, inode in now.items():
            if (directory / name).is_dir():
                yield from self._unsynced(directory / name, f"{prefix}{name}/")
                continue
            kept = self._kept / f"{inode}.synced"
            if (directory / name).read_bytes() != (kept.read_bytes() if kept.exists() else b""):
                yield prefix + name

    def _synced_names(self, directory: Path) -> dict[str, int]:
        kept = self._kept / f"{directory.stat().st_ino}.names"
        names: dict[str, int] = json.loads(kept.read_text()) if kept.exists() else {}
        return names

    def sync(self, path: Path | str) -> None:
        """All that a file holds, or a directory names, is on the disk from now on."""
        with self.alone() as fd:
            self.syncs += 1
            inode = os.stat(path).st_ino
            if os.path.isdir(path):
                names = {entry.name: entry.inode() for entry in os.scandir(path)}
                self._keep(inode, "names", lambda kept: kept.write_text(json.dumps(names)))
                return
            with suppress(FileExistsError):  # a file that is removed keeps its inode to itself
                os.link(path, self._kept / f"{inode}.file", src_dir_fd=fd)  # of any descriptor, so that a link is followed
            self._keep(inode, "synced", lambda kept: shutil.copyfile(path, kept))
            (self._kept / f"{inode}.cut").unlink(missing_ok=True)

    def cut(self, path: Path | str, size: int) -> None:
        """A file is about to be cut."""
        with self.alone():
            mark = self._kept / f"{os.stat(path).st_ino}.cut"
            mark.write_text(str(min(size, int(mark.read_text())) if mark.exists() else size))

    def _keep(self, inode: int, what: str, write: Callable[[Path], object]) -> None:
        """Write a file in one go, whenever the process is killed."""
        unfinished = self._kept / f"{inode}.{what}.new"
        write(unfinished)
        unfinished.rename(self._kept / f"{inode}.{what}")

    def after_a_cut(self, store: Path, copy: Path, generator: random.Random) -> None:
        """Make `copy` what is left of a store: all that was synced, and any part of the rest."""
        with self.alone():
            self._leave(store, copy, generator)
        if (copy / CHECKPOINT).exists():
            let_another_boot_follow(copy)

    def _leave(self, directory: Path, copy: Path, generator: random.Random) -> None:
        copy.mkdir()
        now = {entry.name: entry.inode() for entry in os.scandir(directory)}
        synced = self._synced_names(directory)
        for name in sorted({*now, *synced}):
            inode = now.get(name)
            if inode != synced.get(name) and generator.random() < 0.5:
                inode = synced.get(name)
            if inode is None:
                continue
            if (directory / name).is_dir():
                self._leave(directory / name, copy / name, generator)
            else:
                named = directory / name if inode == now.get(name) else self._kept / f"{inode}.file"
                (copy / name).write_bytes(self._left(inode, named, generator))

    def _left(self, inode: int, path: Path, generator: random.Random) -> bytes:
        """What is left of a file."""
        try:
            now = path.read_bytes()
        except FileNotFoundError:  # removed just now, and never synced
            return b""
        kept = self._kept / f"{inode}.synced"
        synced = kept.read_bytes() if kept.exists() else b""
        mark = self._kept / f"{inode}.cut"
        if mark.exists():
            if generator.random() < 0.5:
                return synced  # the cut, and all behind it, has not reached the disk
            synced = synced[: int(mark.read_text())]
        size = len(synced) if len(now) <= len(synced) else generator.randrange(len(synced), len(now) + 1)
        left = bytearray(synced.ljust(size, b"\0"))
        for at in range(0, size, PAGE):
            if generator.random() < 0.5:
                page = now[at : min(at + PAGE, size)]
                left[at : at + len(page)] = page
        return bytes(left)


class NoSyncs(Durability):
    """For stores that no power cut follows: syncs take most of the time of a test."""

    def _fdatasync(self, fd: int) -> None:
        pass

    def _fsync(self, fd: int) -> None:
        pass

    def _sync_database(self, path: Path, sync: Callable[[], None]) -> None:
        pass


class _Simulated(Durability):
    def __init__(self, store: Path, disk: SimulatedDisk) -> None:
        super().__init__(store)
        self._disk = disk

    def cut(self, fd: int, size: int) -> None:
        self._disk.cut(f"/proc/self/fd/{fd}", size)
        super().cut(fd, size)

    def _fdatasync(self, fd: int) -> None:
        self._disk.sync(f"/proc/self/fd/{fd}")

    def _fsync(self, fd: int) -> None:
        self._disk.sync(f"/proc/self/fd/{fd}")

    def _sync_database(self, path: Path, sync: Callable[[], None]) -> None:
        self._disk.sync(path)

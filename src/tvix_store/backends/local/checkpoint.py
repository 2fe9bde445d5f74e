"""A checkpoint: a durable copy of the page from which LMDB finds one of its transactions, the file `<store>/checkpoint`.

LMDB never changes a page that a committed transaction reaches. It writes changed pages elsewhere, and a page of its own, the meta
page, that names the root. A page is used again when no reader needs it. So a transaction exists for as long as a reader holds it.
To put its meta page back is to go back to it: `restore`. All pages of the transaction must be on the disk before.

    magic 16, boot 36, file name 28 (padded with zeros), highest pack number u64, the beginning of the meta page 152,
    BLAKE3 of all that 32

The name is that of the file in `<store>/index` which the checkpoint belongs to. So putting a new index in the place of another is
one rename. The boot is that of the kernel that ran then. If another one runs now, commits behind the checkpoint may be torn. In the
place of a boot, a sealed checkpoint has SEALED (see `seal.py`).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blake3 import blake3

from tvix_store.backends.local.durability import Durability
from tvix_store.errors import CorruptError

FILE = "checkpoint"
SEALED = "sealed".ljust(36, "-")
"""In the place of a boot: nothing was committed behind the checkpoint, and what lies behind the packs' ends does not count."""
_MAGIC = b"tvix-store cp 1\n"
_FILE = struct.Struct("<16s36s28sQ")
_CHECK_SIZE = 32
_META = struct.Struct("<QHHHHIIQQ")
"""Of LMDB 0.9 on a 64-bit machine: page number, padding, flags, bounds; then magic, version, address, size of the map."""
_DATABASE = struct.Struct("<IHHQQQQQ")
"""Padding (the page size, in the first of two), flags, depth, branch, leaf and overflow pages, entries, root."""
_TAIL = struct.Struct("<QQ")
"""Last page, transaction."""
_TAIL_AT = _META.size + 2 * _DATABASE.size
META_SIZE = _TAIL_AT + _TAIL.size
"""Bytes of a meta page that LMDB uses."""
_IS_META = 0x08
_LMDB_MAGIC, _LMDB_VERSION = 0xBEEFC0DE, 1
_PAGE_SIZES = (4096, 8192, 16384, 32768)


@cache
def this_boot() -> str:
    """The id of the running kernel's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Meta:
    """A meta page: its first 152 bytes, its transaction, the last page that it knows, and the size of pages in bytes."""

    content: bytes
    transaction: int
    last_page: int
    page_size: int

    @property
    def file_size(self) -> int:
        """Bytes of the file that the transaction may reach."""
        return (self.last_page + 1) * self.page_size


def parse_meta(content: bytes) -> Meta | None:
    """None where this is no meta page of the LMDB that we know."""
    if len(content) != META_SIZE:
        return None
    _, _, flags, _, _, magic, version, _, _ = _META.unpack_from(content)
    page_size = _DATABASE.unpack_from(content, _META.size)[0]
    if not flags & _IS_META or (magic, version) != (_LMDB_MAGIC, _LMDB_VERSION) or page_size not in _PAGE_SIZES:
        return None
    last_page, transaction = _TAIL.unpack_from(content, _TAIL_AT)
    return Meta(content, transaction, last_page, page_size)


def newest_meta(path: Path) -> Meta | None:
    """The meta page that LMDB goes by; None where the file has none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = parse_meta(os.pread(fd, META_SIZE, 0))
        second = parse_meta(os.pread(fd, META_SIZE, first.page_size)) if first else None
    finally:
        os.close(fd)
    return max(filter(None, (first, second)), key=lambda meta: meta.transaction, default=None)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a store can go back to."""

    boot: str
    file: str
    """The name of the LMDB file."""
    highest_pack: int
    """No pack had a higher number."""
    meta: Meta

    @property
    def is_of_this_boot(self) -> bool:
        return self.boot == this_boot()

    @property
    def is_sealed(self) -> bool:
        return self.boot == SEALED

    def write(self, store: Path, durability: Durability) -> None:
        """Put it in the place of the last one. All pages that it reaches, and all packs that it names, must be on the disk."""
        head = _FILE.pack(_MAGIC, self.boot.encode(), self.file.encode(), self.highest_pack)
        data = head + self.meta.content
        durability.replace_file(store / FILE, data + blake3(data).digest())

    @classmethod
    def read(cls, store: Path) -> Checkpoint | None:
        """None where there is none.

        Raises:
            CorruptError: it is damaged.
        """
        path = store / FILE
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            data = os.read(fd, 4096)
        except OSError:  # a directory, for example
            data = b""
        finally:
            os.close(fd)
        content, check = data[:-_CHECK_SIZE], data[-_CHECK_SIZE:]
        if len(content) == _FILE.size + META_SIZE and blake3(content).digest() == check:
            magic, boot, file, highest_pack = _FILE.unpack_from(content)
            meta = parse_meta(content[_FILE.size :])
            name = file.rstrip(b"\0").decode(errors="replace")
            if magic == _MAGIC and meta is not None and name == os.path.basename(name):  # no file of another directory
                return cls(boot.decode(), name, highest_pack, meta)
        raise CorruptError(f"{path} is damaged")

    def restore(self, file: Path, durability: Durability) -> None:
        """Let LMDB see the file as it was. The caller has the store to itself, and nobody has the file open."""
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            # After a failed write-back, memory and disk differ.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for number in range(2):
                os.pwrite(fd, number.to_bytes(8, "little") + self.meta.content[8:], number * self.meta.page_size)
            durability.sync_file(fd)
        finally:
            os.close(fd)

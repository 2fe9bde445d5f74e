"""import_archive: put the tree in a NAR or a tar, compressed or not, into a store, as `import_tree` does with one on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, Literal

from tvix_store.compression import DETECT, SUFFIXES, decompressor
from tvix_store.compression.detect import detect
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.errors import InvalidError
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import check_store_path_name
from tvix_store.nar import MAX_DEPTH
from tvix_store.operations.ingest.account import ImportAccount
from tvix_store.operations.ingest.import_content import Progress
from tvix_store.operations.ingest.import_nar import NarImport
from tvix_store.operations.ingest.import_tar import import_tar
from tvix_store.operations.ingest.import_tree import Imported, record_import
from tvix_store.operations.ingest.tar_reader import BLOCK, is_header
from tvix_store.services.store import Store

Form = Literal["nar", "tar"]
_READ = 256 << 10
_SHORT = {"tgz": "tar.gz", "tbz2": "tar.bz2", "tbz": "tar.bz2", "txz": "tar.xz", "tzst": "tar.zst"}


def archive_name(file_name: str) -> str:
    """The name of a file without what it says of its form and compression: `hello` for `hello.tar.gz`."""
    stem, _, last = file_name.rpartition(".")
    if stem and last in _SHORT:
        return stem
    if stem and f".{last}" in SUFFIXES:
        file_name = stem
    return file_name.removesuffix(".nar").removesuffix(".tar") or file_name


async def import_archive(
    store: Store,
    file: BinaryIO,
    form: Form,
    *,
    name: str,
    suffix: str = "",
    path_info: bool = True,
    size_rule: SizeRule | None = None,
    progress: Progress | None = None,
    account: ImportAccount | None = None,
) -> Imported:
    """Import the archive that a thread reads from `file`, to its end. The store path is called `name`.

    Any of Nix's compressions is found by the first bytes, brotli by `suffix` (`.br`), that of the file's name. `size_rule`
    overrides the store's. `account` takes what was done.

    Raises:
        InvalidError: the archive, or its compression, is damaged; something in it cannot be stored; the name is not allowed.
        ExhaustedError: it is too large, or the store is full.
    """
    name = check_store_path_name(name)
    pieces = _pieces(file, form, suffix)
    if form == "tar":
        content = await import_tar(store, pieces, size_rule=size_rule, progress=progress, account=account)
        return await record_import(store, name, content.node, content.nar, content.depth, path_info=path_info)
    async with NarImport(store, size_rule=size_rule, account=account) as work:

        async def nar() -> AsyncIterator[bytes]:
            files = 0
            async for piece in from_thread(pieces):
                if progress is not None:
                    progress(work.files - files, len(piece))
                files = work.files
                yield piece

        read = await work.read(nar())
        await work.store()
    return await record_import(store, name, *read, MAX_DEPTH, path_info=path_info)


def _pieces(file: BinaryIO, form: Form, suffix: str) -> Iterator[bytes]:
    """The archive, decompressed, in pieces of up to 1 MiB."""
    head = file.read(BLOCK)  # all of it, unless the file ends
    if not head:
        raise InvalidError(f"there is no {form}: the file is empty")
    stream = decompressor(_compression(head, form, suffix))
    while head:
        yield from stream.feed(head)
        head = file.read(_READ)
    stream.finish()


def _compression(head: bytes, form: Form, suffix: str) -> str:
    if suffix in SUFFIXES and SUFFIXES[suffix] == "br":  # which does not show in the first bytes
        return "br"
    if form == "nar":
        return DETECT
    if is_header(head) or head == bytes(BLOCK):
        return "none"
    found = detect(head, "a tar")
    if found == "none":
        raise InvalidError("this is a NAR, and not a tar")
    return found

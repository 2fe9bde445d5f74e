"""import_nar: a NAR becomes a store path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from tvix_store import services
from tvix_store.compression import DETECT, decompressor
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.library.data import Data, as_pieces
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import check_store_path_name
from tvix_store.nar import MAX_DEPTH
from tvix_store.operations.ingest.import_nar import NarImport
from tvix_store.operations.ingest.import_tree import Imported, record_import
from tvix_store.services.store import wanted_store


async def import_nar(
    store: services.Store, nar: Data, *, name: str, path_info: bool = True, size_rule: SizeRule | None = None
) -> Imported:
    """Import a NAR, as `nix-store --restore` reads it: bytes, an open file, or pieces. It may be compressed, but not with brotli.

    `name` is the store path's. `path_info=False` stores content only. `size_rule` overrides the store's.

    Raises:
        InvalidError: the NAR, or its compression, is damaged; something in it cannot be stored; the name is not allowed.
        ExhaustedError: it is too large, or the store is full.
    """
    wanted_store(store)
    check_store_path_name(name)
    async with NarImport(store, size_rule=size_rule) as work:
        read = await work.read(_decompressed(as_pieces(nar)))
        await work.store()
    return await record_import(store, name, *read, MAX_DEPTH, path_info=path_info)


async def _decompressed(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    decompress = decompressor(DETECT)
    async for piece in pieces:
        async for data in from_thread(decompress.feed(piece)):
            yield data
    decompress.finish()

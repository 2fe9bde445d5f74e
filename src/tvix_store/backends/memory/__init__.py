"""The backend `memory://`: everything in dicts of this process, gone when it ends.

Small enough to be right by reading it: the oracle that other stores are tested against.
"""

from __future__ import annotations

from tvix_store.backends.memory.blobs import MemoryBlobs
from tvix_store.backends.memory.directories import MemoryDirectories
from tvix_store.backends.memory.path_infos import MemoryPathInfos
from tvix_store.backends.memory.records import MemoryRecords
from tvix_store.backends.memory.staging import MemoryStaging
from tvix_store.chunking import DEFAULT_SIZES, ChunkSizes
from tvix_store.layers.blob_deltas import BlobDeltas
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.named_paths import ListedNames
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.store import Store

__all__ = ["MemoryBlobs", "MemoryDirectories", "MemoryPathInfos", "open_store"]


async def open_store(
    *, sizes: ChunkSizes = DEFAULT_SIZES, store_dir: str = STORE_DIR, size_rule: SizeRule = SizeRule.DOCUMENTED
) -> Store:
    """A new, empty store."""
    blobs, directories, known_nars, records = MemoryBlobs(sizes), MemoryDirectories(), MemoryNars(), MemoryRecords()
    path_infos = MemoryPathInfos(records)
    return Store(
        blobs=blobs,
        directories=directories,
        path_infos=path_infos,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        records=records,
        assembling=blobs,
        deltas=BlobDeltas(blobs),
        named_paths=ListedNames(path_infos),
        removal=path_infos,
        staging=MemoryStaging(blobs, directories, known_nars, records, sizes),
        store_dir=store_dir,
        size_rule=size_rule,
    )

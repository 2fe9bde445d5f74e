"""The services of a store, as small protocols, and the Store that holds one of each."""

from tvix_store.services.blobs import SMALL_BLOB, BlobService, BlobStat, Chunk
from tvix_store.services.directories import DirectoryService, DirectoryTree
from tvix_store.services.nar import KnownNars, NarService
from tvix_store.services.offer import Offer
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.statistics import Statistics, Stats
from tvix_store.services.store import Store
from tvix_store.services.stored_tree import StoredTree

__all__ = [
    "SMALL_BLOB",
    "BlobService",
    "BlobStat",
    "Chunk",
    "DirectoryService",
    "DirectoryTree",
    "KnownNars",
    "NarService",
    "Offer",
    "PathInfoService",
    "RecordService",
    "Statistics",
    "Stats",
    "Store",
    "StoredTree",
]

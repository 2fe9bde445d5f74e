"""The contract of a whole store: that of each service, and that they belong together."""

from __future__ import annotations

import pytest

from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.trees.lookup import lookup
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, put_tree
from tvix_store.testing.contracts.assembling import AssemblingContract
from tvix_store.testing.contracts.blobs import BlobServiceContract
from tvix_store.testing.contracts.deltas import DeltasContract
from tvix_store.testing.contracts.directories import DirectoryServiceContract
from tvix_store.testing.contracts.frames import StoredFramesContract
from tvix_store.testing.contracts.granular import GranularContract
from tvix_store.testing.contracts.known_nars import KnownNarsContract
from tvix_store.testing.contracts.nar import HELLO, NAR_OF_TREE, TREE, NarServiceContract
from tvix_store.testing.contracts.path_infos import PathInfoServiceContract, path
from tvix_store.testing.contracts.records import RecordServiceContract
from tvix_store.testing.contracts.removal import RemovalContract
from tvix_store.testing.contracts.staging import StagingContract
from tvix_store.testing.contracts.statistics import StatisticsContract


class StoreContract(BlobServiceContract, DirectoryServiceContract, PathInfoServiceContract, NarServiceContract):
    """Subclasses give a fixture `store`: a new, empty store."""

    @pytest.fixture
    def blobs(self, store: Store) -> BlobService:
        return store.blobs

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return store.directories

    async def test_a_store_that_works_says_so(self, store: Store) -> None:
        await store.check()

    async def test_a_file_is_reached_from_its_store_path(self, store: Store) -> None:
        root = await put_tree(store, TREE)
        put = PathInfo(path("tree"), root, await store.nar.calculate(root))
        await store.path_infos.put(put)
        info = await store.path_infos.get(put.store_path.output_hash)
        assert info is not None
        assert info.nar == NAR_OF_TREE
        file = await lookup(store.directories.tree(info.node), b"bin/hello")
        assert isinstance(file, FileNode)
        assert await collect(store.blobs.read(file.digest)) == HELLO


class PowersContract(
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    RemovalContract,
    StagingContract,
    StatisticsContract,
    StoredFramesContract,
):
    """That of all powers of a store on this machine."""


class StoreWithRecordsContract(StoreContract, RecordServiceContract):
    """That of a store that has a place for records."""

    @pytest.fixture
    def records(self, store: Store) -> RecordService:
        assert store.records is not None
        return store.records

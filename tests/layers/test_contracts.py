"""Layers, and the services of stages, keep the contracts of what they stand over, and of the powers that pass them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from pathlib import Path
from unittest.mock import ANY

import pytest

from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.config import open_store, read_only, verified
from tvix_store.config.substituters import with_substituters
from tvix_store.layers.closed import ClosedPathInfos
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.staging import Stage
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    BlobServiceContract,
    DirectoryServiceContract,
    KnownNarsContract,
    PowersContract,
    StatisticsContract,
    StoreContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)


class TestSignaturePolicy(StoreWithRecordsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with verified(await open_memory(), [SecretKey.generate("trusted-1").public]) as store:
            yield store


class TestPowersOfAVerifiedStore(PowersContract):
    """What checks path infos does not get between the store and its powers."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with verified(await open_local(tmp_path / "store"), [SecretKey.generate("trusted-1").public]) as store:
            yield store


class EveryPathExists(PassingPathInfos):
    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return dict.fromkeys(output_hashes, ANY)


class NothingIsRequired(PassingPathInfos):
    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        return await self._inner.put(path_info, trust)


class TestClosedStore(StoreContract):
    """What is put with all its references is as in the store itself."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_memory() as store:
            closed = store.with_services(path_infos=EveryPathExists(store.path_infos))
            yield store.with_services(path_infos=ClosedPathInfos(closed, NothingIsRequired(store.path_infos)))


class TestComposedStore(StoreWithRecordsContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_store("memory:", directories="memory://", path_infos=str(tmp_path / "store")) as store:
            yield store


class TestPowersOfAComposedStore(PowersContract):
    """Content in one store, and path infos with records in another."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_store(str(tmp_path / "content"), path_infos=str(tmp_path / "path infos")) as store:
            yield store


class TestPowersOfAStoreComposedOfThree(AssemblingContract, KnownNarsContract, StatisticsContract, StoredFramesContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        blobs, directories, path_infos = (str(tmp_path / name) for name in ("blobs", "directories", "path infos"))
        async with await open_store(blobs, directories=directories, path_infos=path_infos) as store:
            yield store


class TestSubstitutingStore(StoreWithRecordsContract):
    """What no upstream has is as in the store itself."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await with_substituters(await open_memory(), [], [], None) as store:
            yield store


class TestPowersOfASubstitutingStore(PowersContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await with_substituters(await open_local(tmp_path / "store"), [], [], None) as store:
            yield store


class OtherPutsBlobs:
    """Reads from one service, and puts into another."""

    def __init__(self, reading: BlobService, putting: BlobService) -> None:
        self.stat, self.missing, self.read, self.get_many = reading.stat, reading.missing, reading.read, reading.get_many
        self.put, self.put_many = putting.put, putting.put_many


class OtherPutsDirectories:
    def __init__(self, reading: DirectoryService, putting: DirectoryService) -> None:
        self.get, self.get_recursive, self.tree = reading.get, reading.get_recursive, reading.tree
        self.put = putting.put


class OtherPutsPathInfos(PassingPathInfos):
    def __init__(self, reading: PathInfoService, putting: PathInfoService) -> None:
        super().__init__(reading)
        self._putting = putting

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        return await self._putting.put(path_info, trust, requires=requires, calculated=calculated)


class OtherPutsRecords:
    def __init__(self, reading: RecordService, putting: RecordService) -> None:
        self.get, self.list = reading.get, reading.list
        self.put, self.delete, self.exchange = putting.put, putting.delete, putting.exchange


def read_only_over(store: Store) -> Store:
    """A read-only store, through which all is read; puts go to the store itself."""
    reader = read_only(store)
    assert store.records is not None
    assert reader.records is not None
    return reader.with_services(
        blobs=OtherPutsBlobs(reader.blobs, store.blobs),
        directories=OtherPutsDirectories(reader.directories, store.directories),
        path_infos=OtherPutsPathInfos(reader.path_infos, store.path_infos),
        records=OtherPutsRecords(reader.records, store.records),
        keep=["frames", "statistics"],
    )


class TestReadOnlyStore(StoreWithRecordsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_memory() as store:
            yield read_only_over(store)


class TestPowersOfAReadOnlyStore(KnownNarsContract, StatisticsContract, StoredFramesContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_local(tmp_path / "store") as store:
            yield read_only_over(store)


class StagedBlobs:
    """Puts by a stage each time, which is accepted."""

    def __init__(self, store: Store) -> None:
        blobs = store.blobs
        self._store = store
        self.stat, self.missing, self.read, self.get_many = blobs.stat, blobs.missing, blobs.read, blobs.get_many

    async def put(self, data: AsyncIterable[bytes]) -> Digest:
        async with Accepted(self._store) as stage:
            return await stage.blobs.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        async with Accepted(self._store) as stage:
            return await stage.blobs.put_many(blobs)


class StagedDirectories:
    def __init__(self, store: Store) -> None:
        directories = store.directories
        self._store = store
        self.get, self.get_recursive, self.tree = directories.get, directories.get_recursive, directories.tree

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        async with Accepted(self._store) as stage:
            return await stage.directories.put(directories)


class Accepted:
    """A stage that is accepted where the body ends well, and always closed."""

    def __init__(self, store: Store) -> None:
        assert store.staging is not None
        self._stage = store.staging.begin()

    async def __aenter__(self) -> Stage:
        return self._stage

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self._stage.accept()
        finally:
            await self._stage.close()


class ServicesOfStagesContract(BlobServiceContract, DirectoryServiceContract):
    @pytest.fixture
    def blobs(self, store: Store) -> BlobService:
        return StagedBlobs(store)

    @pytest.fixture
    def directories(self, store: Store) -> DirectoryService:
        return StagedDirectories(store)


class TestStagesOfMemory(ServicesOfStagesContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_memory() as store:
            yield store


class TestStagesOfALocalStore(ServicesOfStagesContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_local(tmp_path / "store") as store:
            yield store

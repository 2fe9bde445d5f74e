"""The contract of LoneFiles."""

from __future__ import annotations

import pytest

from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.services.lone_files import LoneFiles
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, file_nar, noise, pieces


def lone_files(store: Store) -> LoneFiles:
    assert store.lone_files is not None
    return store.lone_files


@pytest.mark.asyncio
class LoneFilesContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `lone_files` are not None."""

    @pytest.mark.parametrize("executable", [False, True])
    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    async def test_a_lone_file_is_a_blob_whose_nar_is_right(self, store: Store, size: int, executable: bool) -> None:
        data = noise(size, "lone")
        digest = await lone_files(store).put(pieces(data, 700_000), size, executable=executable)
        assert digest == Digest.of(data)
        assert await collect(store.blobs.read(digest)) == data
        assert await store.nar.calculate(FileNode(digest, size, executable)) == file_nar(data, executable=executable)

    @pytest.mark.parametrize("stated", [0, 2_999_999, 3_000_001])
    async def test_a_file_of_another_size_is_a_blob_as_well(self, store: Store, stated: int) -> None:
        data = noise(3_000_000, "lone")
        digest = await lone_files(store).put(pieces(data, 700_000), stated, executable=False)
        assert await collect(store.blobs.read(digest)) == data
        assert await store.nar.calculate(FileNode(digest, 3_000_000)) == file_nar(data)

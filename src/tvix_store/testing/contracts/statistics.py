"""The contract of Statistics."""

from __future__ import annotations

import pytest

from tvix_store.model.path_info import PathInfo
from tvix_store.services.statistics import Stats
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_file, put_tree
from tvix_store.testing.contracts.nar import HELLO, NAR_OF_TREE, TREE
from tvix_store.testing.contracts.path_infos import path


async def counted(store: Store) -> Stats:
    assert store.statistics is not None
    return await store.statistics.stats()


@pytest.mark.asyncio
class StatisticsContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `statistics` are not None."""

    async def test_an_empty_store_holds_nothing(self, store: Store) -> None:
        stats = await counted(store)
        assert (stats.path_infos, stats.directories, stats.chunked_blobs, stats.chunks) == (0, 0, 0, 0)
        assert (stats.logical_bytes, stats.unique_bytes, stats.stored_bytes) == (0, 0, 0)

    async def test_what_a_store_counts_grows_with_what_it_holds(self, store: Store) -> None:
        before = await counted(store)
        root = await put_tree(store, TREE)
        await store.path_infos.put(PathInfo(path("tree"), root, await store.nar.calculate(root)))
        after = await counted(store)
        assert after.path_infos == before.path_infos + 1
        assert after.directories == before.directories + 4
        assert after.logical_bytes == before.logical_bytes + NAR_OF_TREE.size
        assert after.unique_bytes == before.unique_bytes + len(HELLO)
        assert before.stored_bytes < after.stored_bytes <= after.disk_bytes

    async def test_content_that_is_put_again_is_counted_once(self, store: Store) -> None:
        await put_file(store.blobs, noise(3_000_000, "counted"))
        before = await counted(store)
        assert before.unique_bytes == 3_000_000
        assert before.chunked_blobs == 1
        await put_file(store.blobs, noise(3_000_000, "counted"))
        after = await counted(store)
        assert (after.unique_bytes, after.stored_bytes, after.chunks) == (before.unique_bytes, before.stored_bytes, before.chunks)

    async def test_another_path_of_the_same_content_adds_logical_bytes_alone(self, store: Store) -> None:
        root = await put_tree(store, TREE)
        nar = await store.nar.calculate(root)
        await store.path_infos.put(PathInfo(path("one"), root, nar))
        before = await counted(store)
        await store.path_infos.put(PathInfo(path("two"), root, nar))
        after = await counted(store)
        assert after.logical_bytes == before.logical_bytes + nar.size
        assert after.unique_bytes == before.unique_bytes

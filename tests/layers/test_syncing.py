"""A path info is acknowledged once its content, which stands elsewhere, is on the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import UnavailableError
from tvix_store.layers.syncing import SyncingPathInfos
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.contracts import StoreContract

INFO = PathInfo(StorePath(bytes(20), "x"), SymlinkNode(b"y"), NarFacts(1, bytes(32)))


async def nothing_to_do() -> None:
    return None


class TestSyncingStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store() as memory:
            yield replace(memory, path_infos=SyncingPathInfos(memory.path_infos, nothing_to_do))


async def test_content_is_synced_before_a_path_info_is_stored() -> None:
    store = await open_store()
    stored_at_sync: list[PathInfo | None] = []

    async def sync() -> None:
        stored_at_sync.append(await store.path_infos.get(bytes(20)))

    assert await SyncingPathInfos(store.path_infos, sync).put(INFO) == INFO
    assert stored_at_sync == [None]
    assert await store.path_infos.get(bytes(20)) == INFO


async def test_a_path_info_whose_content_cannot_be_synced_is_not_stored() -> None:
    store = await open_store()

    async def sync() -> None:
        raise UnavailableError("the disk is away")

    with pytest.raises(UnavailableError, match="the disk is away"):
        await SyncingPathInfos(store.path_infos, sync).put(INFO)
    assert await store.path_infos.get(bytes(20)) is None

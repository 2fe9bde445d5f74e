"""Collection of a store with named caches: their paths and documents need content of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.backends.local.test_collection import GRACE, TREE, collect_garbage, is_whole, put_path, remove
from tvix_store.backends.local import open_store
from tvix_store.config.compose import open_store as open_address
from tvix_store.errors import ForgottenError
from tvix_store.operations.paths.documents import KeptDocuments
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, stream


class Stores(NamedTuple):
    whole: Store
    cache: Store


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(await open_store(tmp_path / "store"))
        cache = await stack.enter_async_context(await open_address(f"local://{tmp_path}/store?cache=team"))
        yield Stores(whole, cache)


async def test_what_a_path_of_a_cache_needs_stays(stores: Stores) -> None:
    kept = await put_path(stores.cache, "kept", TREE)
    gone = await put_path(stores.whole, "gone", {b"file": noise(300_000, "gone")})
    await remove(stores.whole, gone)
    assert (await collect_garbage(stores.whole)).dropped.count > 0
    assert await is_whole(stores.cache, kept)
    await remove(stores.cache, kept)
    assert (await collect_garbage(stores.whole)).dropped.size > 1_000_000
    assert await put_path(stores.cache, "kept", TREE) == kept


async def test_a_document_keeps_its_content(stores: Stores) -> None:
    for store in stores:
        documents = KeptDocuments.of(store)
        assert documents is not None
        await documents.put("log", "built.drv", stream([noise(200_000, store.name)]))
    await put_path(stores.whole, "kept", TREE)
    await collect_garbage(stores.whole)
    await collect_garbage(stores.whole)
    for store in stores:
        documents = KeptDocuments.of(store)
        assert documents is not None
        node = await documents.get("log", "built.drv")
        assert node is not None
        assert await store.blobs.missing([node.digest]) == set()


async def test_facts_of_before_let_no_path_of_a_cache_in(stores: Stores) -> None:
    await put_path(stores.whole, "kept", TREE)
    gone = await put_path(stores.cache, "gone", {b"file": noise(300_000, "gone")})
    await remove(stores.cache, gone)
    await collect_garbage(stores.whole, GRACE)
    with pytest.raises(ForgottenError):
        await stores.cache.path_infos.put(gone, calculated=True)
    await stores.cache.nar.calculate(gone.node)
    await stores.cache.path_infos.put(gone, calculated=True)
    await collect_garbage(stores.whole)
    assert await is_whole(stores.cache, gone)


async def test_a_publication_waits_for_a_path_that_is_being_put(stores: Stores) -> None:
    """Between the look for the facts and the put, nothing is published."""
    import asyncio

    await put_path(stores.whole, "kept", TREE)
    gone = await put_path(stores.whole, "gone", {b"file": noise(300_000, "gone")})
    await remove(stores.whole, gone)
    async with stores.cache.keeping():
        running = asyncio.create_task(collect_garbage(stores.whole, GRACE))
        await asyncio.sleep(0.5)
        assert not running.done()
        assert stores.whole.known_nars is not None
        assert await stores.whole.known_nars.get(gone.node) is not None
    assert (await running).condemned.count > 0
    assert await stores.whole.known_nars.get(gone.node) is None

"""Named caches: stores of their own over one content, none of which tells of another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tvix_store.config import open_store
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.model.byte_size import read_bytes
from tvix_store.model.digest import Digest
from tvix_store.operations.ingest.import_nar import import_nar
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, stream
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)
from tvix_store.testing.trees import TreeFile, nar

OpenCache = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def open_cache(tmp_path: Path) -> AsyncIterator[OpenCache]:
    """Opens named caches of one store; without a name, the store itself."""
    async with AsyncExitStack() as opened:

        async def open_one(name: str) -> Store:
            return await opened.enter_async_context(
                await open_store(f"local://{tmp_path}/store" + (f"?cache={name}" if name else ""))
            )

        yield open_one


class TestNamedCache(
    StoreWithRecordsContract,
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    StagingContract,
    StoredFramesContract,
):
    """A cache is a store."""

    @pytest.fixture
    async def store(self, open_cache: OpenCache) -> Store:
        return await open_cache("one")


async def test_a_cache_holds_no_more_than_its_quota(tmp_path: Path) -> None:
    address = f"local://{tmp_path}/store?cache=small&quota=5M"
    async with await open_store(address) as cache:
        for seed in ("one", "one", "two"):  # the same content counts once
            await cache.blobs.put(stream([noise(2 << 20, seed)]))
        with pytest.raises(ExhaustedError, match="has no room"):
            await cache.blobs.put(stream([noise(2 << 20, "three")]))
        with pytest.raises(ExhaustedError, match="has no room"):
            await import_nar(cache, stream([nar(TreeFile(noise(2 << 20, "nar")))]))
        assert await cache.blobs.missing([Digest.of(noise(2 << 20, "nar"))])
        await cache.blobs.put(stream([b"small"]))
    async with await open_store(address) as cache:  # it counts on
        with pytest.raises(ExhaustedError, match="has no room"):
            await cache.blobs.put_many([noise(256 << 10, f"{n}") for n in range(5)])
    async with await open_store(f"local://{tmp_path}/store?cache=other") as cache:
        await cache.blobs.put(stream([noise(4 << 20)]))


async def test_caches_that_are_opened_twice_count_together(tmp_path: Path) -> None:
    address = f"local://{tmp_path}/store?cache=small&quota=3M"
    async with await open_store(address) as one, await open_store(address) as two:
        await one.blobs.put(stream([noise(2 << 20)]))
        with pytest.raises(ExhaustedError, match="has no room"):
            await two.blobs.put(stream([noise(2 << 20, "other")]))


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("12", 12), ("3K", 3 << 10), ("3M", 3 << 20), ("50G", 50 << 30), ("2T", 2 << 40)]
)
def test_numbers_of_bytes_are_read(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1 G", "1g", "9" * 16])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="not a number of bytes"):
        read_bytes(text)

"""Named caches: stores of their own over one content, none of which tells of another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tvix_store.config import open_store
from tvix_store.config.substituters import fetch_lock
from tvix_store.errors import ExhaustedError, InvalidError, NoStoreError
from tvix_store.model.byte_size import read_bytes
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.operations.ingest.import_nar import import_nar
from tvix_store.services.blobs import Chunk
from tvix_store.services.granular import StoredChunk
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


async def used(cache: Store) -> int:
    assert cache.records is not None
    return sum([int.from_bytes(value, "little") async for _, value in cache.records.list(b"usage:")])


async def breaks_off(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]
    raise ConnectionResetError


async def test_what_breaks_off_or_finds_no_room_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/store?cache=small&quota=5M") as cache:
        for number in range(4):
            with pytest.raises(ConnectionResetError):
                await cache.blobs.put(breaks_off(noise(4 << 20, f"broken {number}")))
            with pytest.raises(ExhaustedError, match="has no room"):
                await cache.blobs.put(stream([noise(1 << 20, f"large {number} {part}") for part in range(8)]))
        await cache.blobs.put(stream([noise(4 << 20, "whole")]))
        assert await used(cache) == 4 << 20
    assert sum(path.stat().st_size for path in (tmp_path / "store/packs").iterdir()) < 6 << 20


async def test_what_many_send_at_the_same_time_counts_once(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/store?cache=small") as cache:
        await asyncio.gather(*(cache.blobs.put(stream([noise(900_000)])) for _ in range(20)))
        assert await used(cache) == 900_000


async def test_puts_at_the_same_time_stay_within_the_quota_together(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/store?cache=small&quota=1M") as cache:
        puts = (cache.blobs.put(stream([noise(900_000, f"{number}")])) for number in range(20))
        told = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(isinstance(each, ExhaustedError) for each in told) >= 19
        assert await used(cache) <= 1 << 20
        with pytest.raises(ExhaustedError):  # directories count as well
            await cache.directories.put(stream([Directory({b"%d" % number: SymlinkNode(b"x" * 4000) for number in range(300)})]))


async def test_a_file_that_comes_in_chunks_counts_once(tmp_path: Path) -> None:
    async with await open_store(f"local://{tmp_path}/store?cache=small&quota=1M") as cache:
        assert cache.granular is not None
        pieces = [noise(300_000, f"{number}") for number in range(3)]
        await cache.granular.put_chunks([StoredChunk(Digest.of(piece).raw, len(piece), piece) for piece in pieces])
        whole = Digest.of(b"".join(pieces))
        await cache.granular.assemble(whole, [Chunk(Digest.of(piece), len(piece)) for piece in pieces])
        assert await cache.blobs.missing([whole]) == set()
        assert await used(cache) == 900_000


async def test_a_store_that_is_only_read_gets_no_directory_of_caches(tmp_path: Path) -> None:
    await (await open_store(f"local://{tmp_path}/store")).close()
    with pytest.raises(NoStoreError):
        await open_store(f"local://{tmp_path}/store?cache=none&read-only=1")
    assert not (tmp_path / "store/caches").exists()


def test_fetches_of_one_cache_keep_nobody_else_waiting() -> None:
    """They have a lock of their own."""
    address = "local:///store"
    files = [lock._file for lock in map(fetch_lock, (address, f"{address}?cache=a", f"{address}?cache=b")) if lock is not None]
    assert len(set(files)) == 3

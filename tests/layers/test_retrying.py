"""retrying: what is repeated, how often, and what is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tvix_store.backends.memory import open_store as open_memory
from tvix_store.errors import ClosedError, CorruptError, UnavailableError
from tvix_store.layers.retrying import RetryTerms, retrying
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, diamond, missing, noise, pieces, stream
from tvix_store.testing.contracts import DirectoryServiceContract
from tvix_store.testing.contracts.path_infos import stored_file
from tvix_store.testing.faults import Fault, FaultyBlobs, FaultyDirectories, FaultyPathInfos

OFTEN = RetryTerms(tries=1000, first_pause=0, longest_pause=0, budget=10**9)
QUICK = RetryTerms(first_pause=0.0001, longest_pause=0.001)
MIB = 1 << 20
BIG = noise(3 * MIB, "big")


def failing_at(*numbers: int, error: Exception | None = None) -> Fault:
    """Fails at things with these numbers, counted from 0, and lets the others pass."""
    count = -1

    async def fault(data: bytes) -> bytes:
        nonlocal count
        count += 1
        if count in numbers:
            raise error or UnavailableError(f"away at {count}")
        return data

    return fault


def every(number: int) -> Fault:
    """Fails at each so manieth thing."""
    return failing_at(*range(0, 1_000_000, number))


class TestDirectoriesThatAreOftenAway(DirectoryServiceContract):
    @pytest.fixture
    async def directories(self) -> AsyncIterator[DirectoryService]:
        async with await open_memory() as store:
            away = AwayBeforeTheFirst(store.directories, every(2))
            directories = retrying(Offer(directories=away), OFTEN).directories
            assert directories is not None
            yield directories


class AwayBeforeTheFirst(FaultyDirectories):
    """Fails at calls."""

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Any]:
        await self._fault(b"")
        async for each in self._inner.get_recursive(digest):
            yield each

    async def put(self, directories: Any) -> Digest:
        await self._fault(b"")
        return await self._inner.put(directories)


def of_blobs(store: Store, fault: Fault, terms: RetryTerms = QUICK) -> BlobService:
    blobs = retrying(Offer(blobs=FaultyBlobs(store.blobs, fault)), terms).blobs
    assert blobs is not None
    return blobs


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_memory() as store:
        yield store


async def test_a_call_is_repeated_until_its_tries_are_used(store: Store) -> None:
    [digest] = await store.blobs.put_many([b"content"])
    assert await of_blobs(store, failing_at(0, 1, 2, 3)).missing([digest]) == set()
    with pytest.raises(UnavailableError, match="away at 4"):
        await of_blobs(store, failing_at(*range(100))).missing([digest])


async def test_pauses_grow_and_are_drawn_at_random(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        most.append(high)
        return 0.0

    monkeypatch.setattr(random, "uniform", uniform)
    with pytest.raises(UnavailableError):
        await of_blobs(store, every(1), RetryTerms(tries=6, first_pause=0.1, longest_pause=1.0)).missing([])
    assert most == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_after_the_total_time_nothing_is_tried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    with pytest.raises(UnavailableError, match="away at 1"):
        await of_blobs(store, every(1), RetryTerms(tries=100, first_pause=0.01, longest_pause=1.0, total=0.02)).missing([])


async def test_a_store_that_is_down_is_not_hammered(store: Store) -> None:
    """The budget is one for all callers, and comes back with calls that end well."""
    calls = 0

    async def down(data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if is_down:
            raise UnavailableError("down")
        return data

    is_down = True
    blobs = of_blobs(store, down, RetryTerms(first_pause=0, budget=10))
    asked = await asyncio.gather(*(blobs.missing([]) for _ in range(100)), return_exceptions=True)
    assert all(isinstance(each, UnavailableError) for each in asked)
    assert calls == 110
    is_down = False
    for _ in range(20):
        await blobs.missing([])
    is_down, calls = True, 0
    for _ in range(10):
        with pytest.raises(UnavailableError):
            await blobs.missing([])
    assert calls == 12


@pytest.mark.parametrize("error", [ClosedError("closed"), CorruptError("damaged")])
async def test_other_errors_are_not_repeated(store: Store, error: Exception) -> None:
    with pytest.raises(type(error)):
        await of_blobs(store, failing_at(0, error=error)).missing([])


@pytest.mark.parametrize("part", [(0, None), (1_000_000, 2_900_000)])
async def test_a_read_goes_on_where_it_broke_off(store: Store, part: tuple[int, int | None]) -> None:
    digest = await store.blobs.put(pieces(BIG, MIB))
    for place in range(6):
        blobs = of_blobs(store, failing_at(place, place + 2, place + 3))
        assert await collect(blobs.read(digest, *part)) == BIG[slice(*part)]


async def test_a_stream_that_has_begun_is_not_begun_again(store: Store) -> None:
    graph = diamond()
    root = await store.directories.put(stream(graph))
    for place, passes in ((0, True), (1, True), (2, False)):
        offer = retrying(Offer(directories=FaultyDirectories(store.directories, failing_at(place))), QUICK)
        assert offer.directories is not None
        reading = reader(offer.directories.get_recursive, root)
        if passes:
            assert len(await reading()) == 4
        else:
            with pytest.raises(UnavailableError):
                await reading()


def reader(function: Callable[..., AsyncIterator[Any]], *args: Any) -> Callable[[], Any]:
    async def read() -> list[Any]:
        return [each async for each in function(*args)]

    return read


async def test_a_list_of_paths_goes_on_where_it_broke_off(store: Store) -> None:
    infos = [await store.path_infos.put(await stored_file(store, f"path-{n}")) for n in range(10)]
    infos.sort(key=lambda info: info.store_path.output_hash)
    offer = retrying(Offer(path_infos=FaultyPathInfos(store.path_infos, every(4))), OFTEN)
    assert offer.path_infos is not None
    assert [each async for each in offer.path_infos.list()] == infos
    assert [each async for each in offer.path_infos.list(infos[3].store_path.output_hash)] == infos[4:]


@pytest.mark.parametrize(("size", "at", "passes"), [(3 * MIB, (0, 20, 50), True), (5 * MIB, (50,), False)])
async def test_a_put_is_repeated_while_little_of_it_was_read(store: Store, size: int, at: tuple[int, ...], passes: bool) -> None:
    data = noise(size, "put")
    putting = of_blobs(store, failing_at(*at)).put(pieces(data, 100_000))
    if passes:
        assert await putting == Digest.of(data)
        assert await collect(store.blobs.read(Digest.of(data))) == data
    else:
        with pytest.raises(UnavailableError):
            await putting
        assert await store.blobs.stat(Digest.of(data)) is None


async def test_a_put_of_what_can_be_read_anew_is_repeated_however_large(store: Store) -> None:
    data = noise(6 * MIB, "anew")

    class Source:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return pieces(data, 100_000)

    assert await of_blobs(store, failing_at(0, 61, 120)).put(Source()) == Digest.of(data)


async def test_a_source_that_fails_is_no_shorter_blob(store: Store) -> None:
    """Its own error is told, also if it is the one that is repeated."""

    async def source() -> AsyncIterator[bytes]:
        yield b"begin"
        raise UnavailableError("the source is away")

    with pytest.raises(UnavailableError, match="source"):
        await of_blobs(store, failing_at()).put(source())
    assert await store.blobs.missing([Digest.of(b"begin"), Digest.of(b"")]) == {Digest.of(b"begin"), Digest.of(b"")}


async def test_directories_of_a_tree_are_read_again(store: Store) -> None:
    graph = diamond()
    await store.directories.put(stream(graph))
    offer = retrying(Offer(directories=FaultyDirectories(store.directories, failing_at(0, 1, 4, 5))), QUICK)
    assert offer.directories is not None
    tree = offer.directories.tree(graph[-1].node()).below(graph[1].node())
    tree.expect_all()
    assert [await tree.get(each.digest) for each in (graph[1], graph[0], graph[0])] == [graph[1], graph[0], graph[0]]


async def test_what_may_not_be_repeated_is_left(store: Store) -> None:
    offer = retrying(store, QUICK)
    assert (offer.staging, offer.removal, offer.collection) == (store.staging, store.removal, store.collection)
    assert store.records is not None
    assert offer.records is not None
    calls = 0

    async def exchange(changes: object) -> int:
        nonlocal calls
        calls += 1
        raise UnavailableError("the answer is lost")

    store.records.exchange = exchange  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await offer.records.exchange({})
    assert calls == 1
    assert await offer.records.get(missing().raw) is None

"""What BulkService's calls make a worker keep and do at a time, whoever calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast

import pytest

from tvix_store.errors import ExhaustedError
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.protocol.bulk import decode_blobs
from tvix_store.protocol.chunk_tables import ChunkList, decode_chunk_lists
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.rpc.handlers.granular import granular_methods
from tvix_store.rpc.method import Call
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk
from tvix_store.testing.content import missing
from tvix_store.traffic import SMALL, Budget

ROWS = 2 * SMALL // 48
"""Chunks of a list that needs a place."""


class Watched:
    """A Granular that has everything, and tells how much of it is wanted at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.at_once = self.most_at_once = 0
        self.go_on = asyncio.Event()

    async def get_directories(self, digests: Sequence[Digest]) -> list[Directory]:
        self.batches.append(len(digests))
        return [Directory({})] * len(digests)

    async def get_chunks(self, chunks: Sequence[Frame]) -> list[StoredChunk]:
        self.batches.append(len(chunks))
        return [StoredChunk(chunk.digest, chunk.length, bytes(chunk.length)) for chunk in chunks]

    async def list_chunks(self, blobs: Sequence[Chunk]) -> list[list[Frame]]:
        self.batches.append(len(blobs))
        await self._working()
        return [[Frame(blob.digest.raw, 1, 1)] * ROWS for blob in blobs]

    async def put_chunks(self, _chunks: Sequence[StoredChunk]) -> None:
        await self._working()

    async def assemble(self, _digest: Digest, chunks: Sequence[Chunk]) -> None:
        self.batches.append(len(chunks))

    async def _working(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go_on.wait()
        self.at_once -= 1


class Service:
    """The handlers over a Watched."""

    def __init__(self) -> None:
        self.store = Watched()
        self._methods = granular_methods(cast("Granular", self.store), MAX_MESSAGE)

    def call(self, name: str, request: Any, client: str = "") -> Any:
        method: Any = self._methods[f"/{BULK_SERVICE}/{name}"]
        return method.handle(request, Call("", (), (client, 1)))


@pytest.fixture
async def service() -> Service:
    return Service()


def sized(count: int, size: int) -> ChunkTable:
    return ChunkTable.of_sized([(missing().raw, size)] * count)


async def until_all_wait() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_without_room_little_is_read_ahead(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for room, directories, chunks in ((0, 16, 64), (1 << 40, 1, 4)):
        monkeypatch.setattr("tvix_store.rpc.handlers.granular._ROOM", room)
        service.store.batches.clear()
        got = [message async for message in service.call("GetDirectories", [missing()] * 100)]
        assert sum(len(decode_blobs(message)) for message in got) == 100
        assert max(service.store.batches) == directories
        service.store.batches.clear()
        _ = [message async for message in service.call("GetChunks", sized(100, 10))]
        assert max(service.store.batches) == chunks


async def test_chunks_are_read_a_mebibyte_at_a_time(service: Service) -> None:
    _ = [message async for message in service.call("GetChunks", sized(10, 400_000))]
    assert service.store.batches == [2] * 5


async def test_some_messages_of_chunks_are_stored_at_a_time(service: Service) -> None:
    puts = [asyncio.create_task(service.call("PutChunks", [])) for _ in range(30)]
    await until_all_wait()
    assert service.store.most_at_once == 8
    service.store.go_on.set()
    assert await asyncio.gather(*puts) == [b""] * 30


async def test_few_blobs_are_listed_at_a_time(service: Service) -> None:
    async def listed(size: int) -> None:
        async for message in service.call("ListChunks", sized(5, size)):
            decode_chunk_lists(message)

    calls = [asyncio.create_task(listed(20 << 20)) for _ in range(10)]
    await until_all_wait()
    assert service.store.most_at_once == 2
    service.store.go_on.set()
    await asyncio.gather(*calls)
    assert set(service.store.batches) == {1}


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one list, for which nobody waits."""
    monkeypatch.setattr("tvix_store.rpc.handlers.granular._LISTS", 3 * SMALL)
    monkeypatch.setattr("tvix_store.rpc.handlers.granular.Budget", partial(Budget, patience=0.0))


@pytest.mark.usefixtures("little_room")
async def test_lists_that_have_not_ended_take_room(service: Service) -> None:
    arrive = asyncio.Event()

    async def lists() -> AsyncIterator[list[tuple[ChunkList, int]]]:
        yield [(ChunkList(missing(), sized(ROWS, 1000), more=True), ROWS * 1000)]
        await arrive.wait()
        yield [(ChunkList(missing(), sized(1, 1000)), 1000)]

    async def assembled(client: str) -> object:
        return await anext(service.call("Assemble", lists(), client))

    service.store.go_on.set()
    first = asyncio.create_task(assembled("first"))
    await until_all_wait()
    for refused in (assembled("second"), anext(service.call("ListChunks", sized(1, 1), "third"))):
        with pytest.raises(ExhaustedError):
            await refused
    arrive.set()
    assert await first == b""
    assert service.store.batches[-1] == ROWS + 1
    assert await assembled("second") == b""


@pytest.mark.usefixtures("little_room")
async def test_lists_that_are_not_taken_take_room(service: Service) -> None:
    service.store.go_on.set()
    first = service.call("ListChunks", sized(1, 1), "first")
    await anext(first)
    with pytest.raises(ExhaustedError):
        await anext(service.call("ListChunks", sized(1, 1), "second"))
    await first.aclose()
    third = service.call("ListChunks", sized(1, 1), "third")
    assert await anext(third)
    await third.aclose()

"""How much a store holds, asked of its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.backends.memory import open_store as open_memory_store
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.protocol.dialects import STATISTICS_SERVICE
from tvix_store.rpc.handlers.statistics import statistics_methods
from tvix_store.rpc.method import Call, Method, Unary
from tvix_store.rpc.reflection import reflection_methods
from tvix_store.rpc.services import serve_store
from tvix_store.server.listeners import listening, name
from tvix_store.server.settings import ServerConfig
from tvix_store.server.worker import serving
from tvix_store.services.store import Stats, Store

COUNTED = Stats(1, 2, 3, 4, 5, 6, 7, (1 << 64) - 1)


class Counting:
    """Counts, one at a time."""

    def __init__(self) -> None:
        self.at_once = 0

    async def stats(self) -> Stats:
        self.at_once += 1
        assert self.at_once == 1
        await asyncio.sleep(0.02)
        self.at_once -= 1
        return COUNTED


@asynccontextmanager
async def answering(method: Method) -> AsyncIterator[Store]:
    """A client of a server that answers so when it is asked."""
    methods = await store_methods(reflection=False) | {f"/{STATISTICS_SERVICE}/Get": method}
    methods |= reflection_methods([STATISTICS_SERVICE, "tvix.castore.v1.BlobService"])
    async with serve(methods) as url, await open_store(url) as client:
        yield client


@pytest.mark.parametrize("counts", [False, True])
async def test_a_server_tells_what_its_store_can_count(counts: bool) -> None:
    async with replace(await open_memory_store(), statistics=Counting() if counts else None) as store:
        app, stop = serve_store(store)
        with listening(["127.0.0.1:0"]) as sockets:
            async with (
                serving(app, sockets, ServerConfig(listen=("127.0.0.1:0",), grace=1)),
                await open_store(f"grpc+http://{name(sockets[0])}") as client,
            ):
                assert (client.statistics is not None) is counts
                if client.statistics:
                    assert await client.statistics.stats() == COUNTED
                stop()


async def test_one_count_goes_on_at_a_time() -> None:
    [method] = statistics_methods(Counting()).values()
    async with answering(method) as client:
        assert client.statistics is not None
        assert await asyncio.gather(*(client.statistics.stats() for _ in range(5))) == [COUNTED] * 5


@pytest.mark.parametrize("answer", [b"garbage", b"\x0a\x01x", b"\x0d1234"])
async def test_a_malformed_answer_is_the_servers_fault(answer: bytes) -> None:
    async def lie(_message: bytes, _call: Call) -> bytes:
        return answer

    async with answering(Unary(lie)) as client:
        assert client.statistics is not None
        with pytest.raises(CorruptError, match="breaks a rule"):
            await client.statistics.stats()


async def test_an_error_of_the_server_comes_back() -> None:
    async def fail(_message: bytes, _call: Call) -> bytes:
        raise UnavailableError("the store is closed")

    async with answering(Unary(fail)) as client:
        assert client.statistics is not None
        with pytest.raises(UnavailableError, match="the store is closed"):
            await client.statistics.stats()

"""How much a store holds, asked of its server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, replace

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tests.rpc.drive import request
from tests.rpc.schema import message
from tvix_store.asgi import App
from tvix_store.backends.grpc import open_store
from tvix_store.backends.memory import open_store as open_memory_store
from tvix_store.errors import CorruptError, UnavailableError, UnsupportedError
from tvix_store.model import wire
from tvix_store.protocol.dialects import STATISTICS_SERVICE, TVIX
from tvix_store.protocol.statistics import encode_statistics
from tvix_store.rpc.framing import frame
from tvix_store.rpc.handlers.statistics import statistics_methods
from tvix_store.rpc.method import Call, Method, Unary
from tvix_store.rpc.reflection import reflection_methods
from tvix_store.rpc.services import serve_store
from tvix_store.rpc.status import Status
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig
from tvix_store.services.statistics import Statistics, Stats
from tvix_store.services.store import Store

COUNTED = Stats(1, 2, 3, 4, 5, 6, 7, (1 << 64) - 1)


class Counting:
    """Counts once it may, and counts that."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.may = asyncio.Event()
        self.begun = self.called_off = 0
        if at_once:
            self.may.set()

    async def stats(self) -> Stats:
        self.begun += 1
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        return COUNTED


async def until_still() -> None:
    """Let everything run as far as it comes."""
    for _ in range(50):
        await asyncio.sleep(0)


def calls_of(statistics: Statistics, number: int) -> list[asyncio.Task[bytes]]:
    """That many calls of Get, which all wait for an answer."""
    [method] = statistics_methods(statistics).values()
    assert isinstance(method, Unary)
    return [asyncio.create_task(method.handle(b"", Call("", ()))) for _ in range(number)]


async def listed(app: App) -> tuple[bool, bool]:
    """Whether reflection lists the service, and whether health does."""
    reflection = await request(
        app, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", [frame(wire.message_field(7, b""))]
    )
    health = await request(app, "/grpc.health.v1.Health/List", [frame(b"")])
    reflected = message("grpc.reflection.v1.ServerReflectionResponse").FromString(reflection.answers[0])
    healthy = message("grpc.health.v1.HealthListResponse").FromString(health.answers[0])
    names = [service.name for service in reflected.list_services_response.service]
    return STATISTICS_SERVICE in names, STATISTICS_SERVICE in healthy.statuses


@asynccontextmanager
async def answering(method: Method) -> AsyncIterator[Store]:
    """A client of a server that answers so when it is asked."""
    methods = await store_methods(reflection=False) | {f"/{STATISTICS_SERVICE}/Get": method}
    methods |= reflection_methods([STATISTICS_SERVICE, *TVIX.services])
    async with serve(methods) as url, await open_store(url) as client:
        yield client


@pytest.mark.parametrize("counts", [False, True])
async def test_a_server_tells_what_its_store_can_count(counts: bool) -> None:
    async with replace(await open_memory_store(), statistics=Counting() if counts else None) as store:
        app, health = serve_store(store)
        with listening(["127.0.0.1:0"]) as sockets:
            async with (
                serving(app, sockets, ServerConfig(listen=("127.0.0.1:0",), grace=1)),
                await open_store(f"grpc+http://{name(sockets[0])}") as client,
            ):
                assert (client.statistics is not None) is counts
                if client.statistics:
                    assert await client.statistics.stats() == COUNTED
                health.stop()


@pytest.mark.parametrize("counts", [False, True])
async def test_the_service_is_listed_and_served_where_the_store_can_count(counts: bool) -> None:
    async with replace(await open_memory_store(), statistics=Counting() if counts else None) as store:
        app, _ = serve_store(store)
        assert await listed(app) == (counts, counts)
        outcome = await request(app, f"/{STATISTICS_SERVICE}/Get", [frame(b"")])
        assert outcome.status == (Status.OK if counts else Status.UNIMPLEMENTED)


async def test_who_asks_while_it_counts_shares_the_count() -> None:
    counting = Counting(at_once=False)
    calls = calls_of(counting, 5)
    await until_still()
    counting.may.set()
    assert await asyncio.gather(*calls) == [encode_statistics(astuple(COUNTED))] * 5
    assert counting.begun == 1


async def test_who_asks_later_gets_a_new_count() -> None:
    counting = Counting()
    [method] = statistics_methods(counting).values()
    async with answering(method) as client:
        assert client.statistics is not None
        assert [await client.statistics.stats() for _ in range(2)] == [COUNTED] * 2
    assert counting.begun == 2


async def test_a_count_is_called_off_when_nobody_waits_for_it_any_more() -> None:
    counting = Counting(at_once=False)
    first, second = calls_of(counting, 2)
    await until_still()
    first.cancel()
    await until_still()
    assert counting.called_off == 0
    second.cancel()
    await until_still()
    assert (counting.begun, counting.called_off) == (1, 1)


async def test_a_count_that_fails_fails_for_all_and_is_not_kept() -> None:
    class Failing(Counting):
        async def stats(self) -> Stats:
            await super().stats()
            if self.begun == 1:
                raise UnavailableError("the store is closed")
            return COUNTED

    [method] = statistics_methods(Failing()).values()
    assert isinstance(method, Unary)
    failed = await asyncio.gather(*(method.handle(b"", Call("", ())) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["the store is closed"] * 3
    assert await method.handle(b"", Call("", ())) == encode_statistics(astuple(COUNTED))


async def test_a_server_without_reflection_is_not_asked_to_count() -> None:
    methods = await store_methods(reflection=False) | statistics_methods(Counting())
    async with serve(methods) as url, await open_store(url) as client:
        assert client.statistics is None


async def test_a_server_that_only_lists_the_service_is_not_supported() -> None:
    methods = await store_methods(reflection=False) | reflection_methods([STATISTICS_SERVICE, *TVIX.services])
    async with serve(methods) as url, await open_store(url) as client:
        assert client.statistics is not None
        with pytest.raises(UnsupportedError, match=f"unknown method /{STATISTICS_SERVICE}/Get"):
            await client.statistics.stats()


@pytest.mark.parametrize("answer", [b"garbage", b"\x0a\x01x", b"\x0d1234", b"\x08" + b"\xff" * 9 + b"\x02"])
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

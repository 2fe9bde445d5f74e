"""A store far away is opened in few round trips: questions go at once, and calls one after the other share a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.backends.grpc import open_store
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.rpc.services import serve_store
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig

_OPENING = ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "SettingsService/Get")


@asynccontextmanager
async def served(change: Callable[[App], App]) -> AsyncIterator[str]:
    """The address of a server (`host:port`)."""
    app, _ = serve_store(await open_memory())
    config = ServerConfig(listen=("127.0.0.1:0",), grace=0)
    with listening(config.listen) as sockets:
        async with serving(change(app), sockets, config):
            yield name(sockets[0])


async def test_all_questions_of_an_opening_go_at_once() -> None:
    left = set(_OPENING)
    all_asked = asyncio.Event()

    def waiting(app: App) -> App:
        async def call(scope: Event, receive: Receive, send: Send) -> None:
            left.difference_update([each for each in left if scope["path"].endswith(each)])
            if not left:
                all_asked.set()
            await all_asked.wait()
            await app(scope, receive, send)

        return call

    async with served(waiting) as address, asyncio.timeout(30), await open_store(f"grpc+http://{address}"):
        assert not left


async def test_calls_one_after_the_other_share_a_connection() -> None:
    clients: list[object] = []

    def noting(app: App) -> App:
        async def call(scope: Event, receive: Receive, send: Send) -> None:
            clients.append(scope["client"])
            await app(scope, receive, send)

        return call

    async with served(noting) as address, await open_store(f"grpc+http://{address}") as store:
        clients.clear()
        for number in range(8):
            await store.path_infos.get(bytes([number]) * 20)
    assert len(clients) == 8
    assert len(set(map(str, clients))) == 1


async def test_calls_at_once_are_spread_over_connections() -> None:
    clients: list[object] = []
    all_came = asyncio.Event()

    def noting(app: App) -> App:
        async def call(scope: Event, receive: Receive, send: Send) -> None:
            if scope["path"].endswith("PathInfoService/Get"):
                clients.append(scope["client"])
                if len(clients) == 8:
                    all_came.set()
                await all_came.wait()
            await app(scope, receive, send)

        return call

    async with served(noting) as address, await open_store(f"grpc+http://{address}") as store, asyncio.timeout(30):
        await asyncio.gather(*(store.path_infos.get(bytes([number]) * 20) for number in range(8)))
    assert {clients.count(each) for each in clients} == {2}

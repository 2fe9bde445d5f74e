"""A store as an application of other servers, alone and under a prefix."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tvix_store import Digest, import_tree, open_store
from tvix_store.asgi import App, Event
from tvix_store.model.nixbase32 import encode
from tvix_store.server import CacheSettings, ServerConfig, asgi_app
from tvix_store.server.listeners import listening
from tvix_store.server.serving import serving


@asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    config = ServerConfig(("127.0.0.1:0",))
    with listening(config.listen) as [listener]:
        async with serving(app, [listener], config):
            yield f"127.0.0.1:{listener.getsockname()[1]}"


async def get(url: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def test_it_is_mounted_under_a_prefix_beside_other_routes_and_at_the_root_with_grpc(tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello\n")
    async with open_store("memory://") as store:
        path = (await import_tree(store, tmp_path / "greeting")).store_path
        app = Starlette(
            routes=[
                Route("/hello", hello),
                Mount("/a/cache", asgi_app(store, CacheSettings(priority=7))),
                Mount("/", asgi_app(store)),
            ]
        )
        async with served(app) as address:
            assert await get(f"http://{address}/hello") == "hello"
            assert "Priority: 7" in await get(f"http://{address}/a/cache/nix-cache-info")
            assert "Priority: 40" in await get(f"http://{address}/nix-cache-info")
            narinfo = await get(f"http://{address}/a/cache/{encode(path.output_hash)}.narinfo")
            assert f"StorePath: {path.absolute()}" in narinfo
            assert await get(f"http://{address}/a/c%61che/serve/{path}") == "hello\n"
            async with open_store(f"grpc+http://{address}") as client:
                assert await client.blobs.put(b"over gRPC") == Digest.of(b"over gRPC")


async def test_it_begins_and_ends_with_its_server() -> None:
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Event:
        return dict(next(received))

    async def send(event: Event) -> None:
        sent.append(event["type"])

    async with open_store("memory://") as store:
        await asgi_app(store)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_what_a_server_need_not_say_is_made_up() -> None:
    sent: list[Event] = []

    async def send(event: Event) -> None:
        sent.append(event)

    async def receive() -> Event:
        return {"type": "http.request"}

    async with open_store("memory://") as store:
        scope = {"type": "http", "method": "GET", "path": "/nix-cache-info", "headers": []}
        await asgi_app(store)(scope, receive, send)
    assert sent[0]["status"] == 200

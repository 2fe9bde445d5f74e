"""A path comes in parts from a cache of ours: only those that are missing. Whatever goes wrong with that, it comes as a NAR."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path

import pytest

from tests.operations.granular.watched import Watched, watched
from tests.operations.paths.test_copy import TREE, assert_whole, package, path, stored
from tests.upstream.server import CacheServer, cached
from tvix_store.asgi import App, Event, Receive, Send
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.backends.nix_http import cache as http_cache
from tvix_store.config import upstream_content
from tvix_store.config.caches import open_cache
from tvix_store.config.substituters import with_substituters
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.operations.granular import copy_deltas
from tvix_store.operations.granular.account import Account
from tvix_store.operations.nars.node_urls import node_url
from tvix_store.operations.paths.copy_from_cache import copy_from_cache, named_narinfos
from tvix_store.operations.paths.path_copies import Status
from tvix_store.rpc.services import serve_store
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store
from tvix_store.testing.content import put_tree
from tvix_store.testing.trees import TreeFile

KEY = SecretKey.generate("cache-1")
Change = Callable[[App], App]


@dataclass
class Daemon:
    """A store behind a server; what was asked for over HTTP, by path."""

    store: Store
    seen: Watched
    url: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.url}?trusted-public-keys={KEY.public}"

    def nars(self) -> list[str]:
        return [path for path in self.asked if path.startswith("/nar/")]

    def calls(self) -> list[str]:
        return [path for path in self.asked if path.startswith("/rpc/")]


class Lying(PassingPathInfos):
    def __init__(self, inner: PathInfoService, lies: dict[bytes, PathInfo]) -> None:
        super().__init__(inner)
        self._lies = lies

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return self._lies.get(output_hash) or await self._inner.get(output_hash)


@asynccontextmanager
async def daemon(store: Store, change: Change = lambda app: app, lie: dict[bytes, PathInfo] | None = None) -> AsyncIterator[Daemon]:
    """`lie` holds path infos that calls, and not narinfos, tell."""
    store, seen = watched(store)
    serves = Daemon(store, seen)
    called = store.with_services(path_infos=Lying(store.path_infos, lie if lie is not None else {}), keep=["named_paths"])
    app, _ = serve_store(called, fallback=BinaryCache(store, CacheSettings(signing_keys=(KEY,))))
    changed = change(app)

    async def noted(scope: Event, receive: Receive, send: Send) -> None:
        serves.asked.append(scope["path"])
        await changed(scope, receive, send)

    config = ServerConfig(listen=("127.0.0.1:0",), grace=0)
    with listening(config.listen) as sockets:
        async with serving(noted, sockets, config):
            serves.url = f"http://{name(sockets[0])}"
            yield serves


Front = Callable[..., Awaitable[Store]]


@pytest.fixture
async def before() -> AsyncIterator[Front]:
    """Opens a new store before caches."""
    async with AsyncExitStack() as opened:

        async def open_front(*addresses: str) -> Store:
            return await opened.enter_async_context(await with_substituters(await open_memory(), addresses, [], None))

        yield open_front


async def fetched(front: Store, info: PathInfo) -> PathInfo:
    got = await front.path_infos.get(info.store_path.output_hash)
    assert got is not None
    return got


async def test_only_parts_that_are_missing_come(before: Front) -> None:
    async with daemon(await open_memory()) as upstream:
        front = await before(upstream.address)
        old = await stored(upstream.store, "go-1.1", package(1))
        new = await stored(upstream.store, "go-1.2", {**package(1), b"more": TreeFile(b"more")})  # type: ignore[dict-item]
        got = await fetched(front, old)
        await assert_whole(front, got, package(1))
        upstream.seen.chunks_got.clear()
        got = await fetched(front, new)
        assert got.nar == new.nar
        assert [signature.name for signature in got.signatures] == ["cache-1"]
        assert len(upstream.seen.chunks_got) == 1
        assert upstream.nars() == []


async def test_a_chain_of_caches_moves_parts(before: Front) -> None:
    async with daemon(await open_memory()) as company:
        info = await stored(company.store, "path", TREE)
        site = await before(company.address)
        async with daemon(site) as middle:
            laptop = await before(f"{middle.url}?trusted-public-keys={KEY.public}")
            await assert_whole(laptop, await fetched(laptop, info), TREE)
            assert (company.nars(), middle.nars()) == ([], [])
            assert company.calls()
            assert middle.calls()


async def test_a_program_that_was_built_again_comes_as_a_delta(before: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_deltas, "_FAST", inf)  # as if the link were slow
    async with daemon(await open_memory()) as upstream:
        front = await before(upstream.address)
        old = await stored(upstream.store, "go-1.1", package(1))
        new = await stored(upstream.store, "go-1.2", package(2))
        await fetched(front, old)
        await asyncio.sleep(0.3)  # the names of paths are listed now and then
        upstream.seen.chunks_got.clear()
        await assert_whole(front, await fetched(front, new), package(2))
        assert upstream.seen.chunks_got == []
        assert "/rpc/v1/tvix_store.v1.BulkService/MakeDelta" in upstream.asked


def answering(status: int, body: bytes = b"") -> Change:
    """Calls over plain HTTP are answered so, and all else as it should be."""

    def change(app: App) -> App:
        async def changed(scope: Event, receive: Receive, send: Send) -> None:
            if not scope["path"].startswith("/rpc/"):
                await app(scope, receive, send)
                return
            headers = [(b"content-type", b"application/proto")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return changed

    return change


def failing_at(call: str) -> Change:
    """One call is cut off."""

    def change(app: App) -> App:
        async def changed(scope: Event, receive: Receive, send: Send) -> None:
            if scope["path"].endswith(call):
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"no"})
            else:
                await app(scope, receive, send)

        return changed

    return change


BAD = {
    "not found": answering(404),
    "broken": answering(500),
    "garbage": answering(200, b"\xff" * 100),
    "empty": answering(200),
    "no path info": failing_at("PathInfoService/Get"),
    **{call: failing_at(call) for call in ("GetDirectories", "ListChunks", "GetChunks")},
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_path_whose_parts_do_not_come_is_fetched_as_a_nar(before: Front, kind: str, tmp_path: Path) -> None:
    async with await open_local(tmp_path / "store") as store, daemon(store, BAD[kind]) as upstream:
        info = await stored(upstream.store, "path", TREE)
        front = await before(upstream.address)
        await assert_whole(front, await fetched(front, info), TREE)
        assert len(upstream.nars()) == 1


@pytest.mark.parametrize("lie", ["directory", "chunk", "node", "size"])
async def test_a_cache_that_lies_about_parts_is_not_believed(before: Front, lie: str, tmp_path: Path) -> None:
    lies: dict[bytes, PathInfo] = {}
    async with await open_local(tmp_path / "store") as store, daemon(store, lie=lies) as upstream:
        info = await stored(upstream.store, "path", TREE)
        match lie:
            case "directory":
                upstream.seen.change_directory = lambda directory: Directory({**directory.entries, b"x": SymlinkNode(b"x")})
            case "chunk":
                upstream.seen.change_chunk = lambda chunk: chunk._replace(stored=bytes(chunk.length))
            case "node" | "size":
                # The path info of the service is another than the narinfo, which was signed.
                other = await put_tree(upstream.store, {**TREE, b"more": TreeFile(bytes(3_000_000 if lie == "size" else 3))})  # type: ignore[dict-item]
                lies[info.store_path.output_hash] = replace(info, node=other)
        front = await before(upstream.address)
        await assert_whole(front, await fetched(front, info), TREE)
        assert len(upstream.nars()) == 1


async def test_a_cache_that_was_left_alone_is_asked_again(before: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_cache, "_LEFT_ALONE", 0.2)
    broken = True

    def change(app: App) -> App:
        async def changed(scope: Event, receive: Receive, send: Send) -> None:
            await (BAD["broken"](app) if broken else app)(scope, receive, send)

        return changed

    async with daemon(await open_memory(), change) as upstream:
        front = await before(upstream.address)
        first, second = [await stored(upstream.store, f"path-{n}", {b"file": TreeFile(b"%d" % n)}) for n in range(2)]
        await fetched(front, first)
        broken = False
        await asyncio.sleep(0.3)
        await fetched(front, second)
        assert len(upstream.nars()) == 1


async def test_a_cache_that_stalls_holds_nobody_longer_than_a_nar_may(before: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_content, "PATIENCE", 0.3)

    def change(app: App) -> App:
        async def changed(scope: Event, receive: Receive, send: Send) -> None:
            if scope["path"].endswith("GetDirectories"):
                await asyncio.Event().wait()
            await app(scope, receive, send)

        return changed

    async with daemon(await open_memory(), change) as upstream:
        front = await before(upstream.address)
        infos = [await stored(upstream.store, f"path-{n}", {b"file": TreeFile(b"%d" % n)}) for n in range(2)]
        async with asyncio.timeout(20):
            await fetched(front, infos[0])
            before_second = len(upstream.calls())
            await fetched(front, infos[1])
        assert len(upstream.nars()) == 2
        assert len(upstream.calls()) == before_second, "it is left alone for a while"


async def test_content_that_is_there_is_not_fetched_where_its_node_is_in_the_url(cache: CacheServer, before: Front) -> None:
    front = await before(cache.url)
    node = await put_tree(front, TREE)
    path_of_cache = cached(TREE)
    path_of_cache = cache.publish(path_of_cache.but(url=node_url(node, len(path_of_cache.nar)), compression="none"))
    got = await front.path_infos.get(path_of_cache.output_hash)
    assert got is not None
    assert got.node == node
    assert cache.asked(path_of_cache.nar_path) == 0


async def test_a_copy_from_a_cache_moves_parts() -> None:
    async with daemon(await open_memory()) as upstream, await open_memory() as target:
        low = await stored(upstream.store, "low", package(1))
        high = await stored(upstream.store, "high", TREE, low.store_path)
        cache = await open_cache(f"nix+{upstream.address}", [], store_dir=target.store_dir)
        try:
            found = await named_narinfos(cache, [str(high.store_path)], store_dir=target.store_dir, closure=True)
            account = Account()
            outcomes = [each async for each in copy_from_cache(cache, target, found, account=account)]
        finally:
            await cache.upstream.close()
        assert [(each.store_path, each.status) for each in outcomes] == [
            (low.store_path, Status.COPIED),
            (high.store_path, Status.COPIED),
        ]
        assert upstream.nars() == []
        assert account.logical == low.nar.size + high.nar.size
        assert 0 < account.sent < account.logical
        assert await target.path_infos.get(path("absent").output_hash) is None

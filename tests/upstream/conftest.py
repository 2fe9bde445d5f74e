"""Stores in front of caches on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.upstream.server import CacheServer, serving
from tvix_store.backends import memory, nix_http
from tvix_store.backends.nix_http import Timeouts
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.layers.substituter import Substituter, Terms
from tvix_store.layers.substituters import Substituters
from tvix_store.layers.substituting import SubstitutingPathInfos
from tvix_store.services.store import Store

QUICK = Timeouts(connect=1.5, first_byte=1.5, stalled=1.5)
"""For tests that wait until one is over, and that a busy machine delays by half a second."""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies, credentials and authorities but those of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NETRC", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


class Front:
    """A store, and the layer that fills it from upstreams."""

    def __init__(self, store: Store, path_infos: SubstitutingPathInfos) -> None:
        self.store = store
        self.path_infos = path_infos
        self.get = path_infos.get
        self.put = path_infos.put


Before = Callable[..., Awaitable[Front]]


@pytest.fixture
async def cache() -> AsyncIterator[CacheServer]:
    """A cache without paths."""
    async with serving() as server:
        yield server


@pytest.fixture
async def other_cache() -> AsyncIterator[CacheServer]:
    """Another."""
    async with serving() as server:
        yield server


@pytest.fixture
async def before() -> AsyncIterator[Before]:
    """Opens a new store in memory before caches (or URLs)."""
    async with AsyncExitStack() as opened:

        async def open_front(
            *caches: CacheServer | str,
            pause: float = 0.3,
            timeouts: Timeouts = Timeouts(),  # noqa: B008 - it is frozen
            store: Store | None = None,
            lock: FetchLock | None = None,
        ) -> Front:
            store = store or await memory.open_store()
            substituters = []
            for each in caches:
                address = nix_http.CacheAddress.parse(each if isinstance(each, str) else each.url)
                upstream = await nix_http.open_cache(address, timeouts=timeouts)
                said = address.terms
                terms = Terms(said.public_keys, not said.require_signatures, said.priority, said.negative_ttl, pause)
                substituters.append(Substituter(upstream, terms))
            layer = SubstitutingPathInfos(store, Substituters(substituters), lock)
            opened.push_async_callback(layer.close)
            return Front(store, layer)

        yield open_front

"""Caches over HTTP and in directories are upstreams alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.upstream.server import CacheServer
from tvix_store.backends import nix_file, nix_http
from tvix_store.testing.contracts.upstream import Offering, UpstreamContract


class TestHttpCache(UpstreamContract):
    @pytest.fixture
    async def offering(self, cache: CacheServer) -> AsyncIterator[Offering]:
        cache.answers["/nix-cache-info"] = b"StoreDir: /nix/store\n"
        upstream = await nix_http.open_cache(nix_http.CacheAddress.parse(cache.url))
        yield Offering(upstream, lambda path, data: cache.answers.update({f"/{path}": data}))
        await upstream.close()


class TestDirectoryCache(UpstreamContract):
    @pytest.fixture
    async def offering(self, tmp_path: Path) -> AsyncIterator[Offering]:
        def put(path: str, data: bytes) -> None:
            file = tmp_path / "cache" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

        put("nix-cache-info", b"StoreDir: /nix/store\n")
        upstream = nix_file.open_cache(nix_file.DirectoryAddress.parse(f"file://{tmp_path}/cache"))
        yield Offering(upstream, put)
        await upstream.close()

"""The backend `nix+http://`, `nix+https://`: an upstream binary cache over HTTP. See docs/design/upstream.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from yarl import URL

from tvix_store.backends.nix_http.address import CacheAddress
from tvix_store.backends.nix_http.cache import HttpCache
from tvix_store.backends.nix_http.client import HttpClient, Timeouts
from tvix_store.backends.nix_http.writer import HttpWriter
from tvix_store.client_environment.authorities import trusted_authorities
from tvix_store.client_environment.credentials import Credentials, find_credentials
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.store import Store

OpenParts: TypeAlias = Callable[[URL, Credentials | None], Awaitable[Store]]

__all__ = ["CacheAddress", "HttpCache", "HttpWriter", "Timeouts", "open_cache", "open_writer"]


async def open_cache(
    address: CacheAddress, *, store_dir: str = STORE_DIR, timeouts: Timeouts | None = None, open_parts: OpenParts | None = None
) -> HttpCache:
    """The cache at `address`. Nothing is sent before something is asked for. It belongs to the running event loop.

    `open_parts` opens the store behind a cache of ours, by the cache's URL and credentials.

    Raises:
        InvalidError: the cache is for another `store_dir`; the netrc file, or that of the trusted authorities, cannot be read.
    """
    credentials = address.credentials or find_credentials(address.url.host or "")
    open_content = partial(open_parts, address.url, credentials) if open_parts is not None else None
    client = await _client(address, credentials, store_dir, timeouts)
    return HttpCache(client, address.name, store_dir=store_dir, open_content=open_content)


async def open_writer(address: CacheAddress, *, store_dir: str = STORE_DIR) -> HttpWriter:
    """The cache at `address`, to be written. Nothing is sent yet.

    Raises:
        InvalidError: as `open_cache`.
    """
    client = await _client(address, address.credentials or find_credentials(address.url.host or ""), store_dir)
    return HttpWriter(client, HttpCache(client, address.name, store_dir=store_dir), store_dir=store_dir)


async def _client(
    address: CacheAddress, credentials: Credentials | None, store_dir: str, timeouts: Timeouts | None = None
) -> HttpClient:
    address.terms.check_store_dir(address.name, store_dir)
    authorities = await trusted_authorities()
    return HttpClient(address.url, credentials=credentials, authorities=authorities, timeouts=timeouts or Timeouts())

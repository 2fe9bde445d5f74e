"""What stands at the address of a push: a store, which takes parts, or another binary cache, which takes NARs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tvix_store.config.compose import open_store
from tvix_store.config.verifying import verified
from tvix_store.errors import DeniedError, InvalidError, StoreError
from tvix_store.model.address import Address
from tvix_store.services.store import Store

if TYPE_CHECKING:
    from tvix_store.config.caches import Target

_HTTP = ("http", "https", "nix+http", "nix+https")
_DIRECTORIES = ("file", "nix+file")
_PUSH = "/push"
"""Where a daemon has its store without its upstreams: there, nothing is fetched that is about to be pushed."""


async def open_push_target(to: str, *, store_dir: str) -> Store | Target:
    """The store, or the binary cache, at `to`. Close it when done.

    A URL of HTTP is asked what it is: a daemon of ours, over gRPC or over plain HTTP, or else a cache that takes NARs.

    Raises:
        InvalidError: the address is malformed, or the store is for another store directory.
        UnavailableError: nobody is there.
        StoreError: the store cannot be opened.
    """
    address = Address.parse(to)
    if address.scheme in _DIRECTORIES:
        return await _cache(to, store_dir)
    if address.scheme not in _HTTP:
        return verified(await open_store(to, store_dir=store_dir), require_references=True)
    place = address.location.removeprefix("nix+").rstrip("/")
    below = place if address.path.rstrip("/").endswith(_PUSH) else f"{place}{_PUSH}"
    refusal: DeniedError | None = None
    try:
        return await open_store(f"grpc+{below}", store_dir=store_dir)
    except InvalidError:
        raise
    except DeniedError as error:
        refusal = error
    except StoreError:
        pass  # it may be no daemon of ours, or gRPC does not pass
    if await _has_calls(place, store_dir):
        if refusal is not None:
            raise refusal
        return await open_store(f"connect+{below}", store_dir=store_dir)
    return await _cache(to, store_dir)


async def _has_calls(place: str, store_dir: str) -> bool:
    """Whether a binary cache is a daemon of ours, which says so."""
    from tvix_store.backends import nix_http  # aiohttp takes a while, and few need it
    from tvix_store.model.cache_info import MAX_CACHE_INFO, NAME, CacheInfo
    from tvix_store.protocol.connect import CALLS_KEY
    from tvix_store.services.upstream import UpstreamFailsError

    cache = await nix_http.open_cache(nix_http.CacheAddress.parse(place), store_dir=store_dir)
    try:
        with suppress(UpstreamFailsError):
            return CALLS_KEY in CacheInfo.parse(await cache.document(NAME, MAX_CACHE_INFO) or b"").values
        return False
    finally:
        await cache.close()


async def _cache(to: str, store_dir: str) -> Target:
    from tvix_store.config.caches import open_target

    return await open_target(to, store_dir=store_dir)

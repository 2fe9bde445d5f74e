"""A place on this machine for the links of NARs, beside a store elsewhere that has none: daemons take NARs over HTTP by these."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace

from tvix_store.backends.recent_records import RecentRecords
from tvix_store.config.user_directories import cache_directory
from tvix_store.errors import StoreError
from tvix_store.services.store import Store

_log = logging.getLogger(__name__)


async def with_links(store: Store, addresses: Mapping[str, str | None]) -> Store:
    """`store`, opened at `addresses`, with `links` where it has no records.

    All daemons of a user that serve the same addresses share them. Where there is no such place, that is a line in the log.
    """
    if store.records is not None:
        return store
    caches = cache_directory()
    if caches is None:
        _log.warning("NARs cannot be pushed over HTTP: this user has no home; $XDG_CACHE_HOME may name a place for their links")
        return store
    name = hashlib.sha256("\0".join(f"{service} {address}" for service, address in sorted(addresses.items())).encode())
    try:
        links = RecentRecords(caches / "links" / name.hexdigest()[:32])
        try:
            await links.open()
        except StoreError:
            await links.close()
            raise
    except StoreError as error:
        _log.warning("NARs cannot be pushed over HTTP: %s; $XDG_CACHE_HOME may name another place for their links", error)
        return store

    async def close() -> None:
        await links.close()
        await store.close()

    return replace(store, links=links, close=close)

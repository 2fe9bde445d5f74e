"""A place on this machine for the links of NARs, beside a store elsewhere that has none: daemons take NARs over HTTP by these."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tvix_store.backends.recent_records import RecentRecords
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.services.store import Store

_log = logging.getLogger(__name__)


async def with_links(store: Store, addresses: Mapping[str, str | None]) -> Store:
    """`store`, opened at `addresses`, with `links` where it has no records.

    All daemons of a user that serve the same addresses share them. Where there is no such place, that is a line in the log.
    """
    if store.records is not None:
        return store
    name = hashlib.sha256("\0".join(f"{service} {address}" for service, address in sorted(addresses.items())).encode())
    try:
        links = RecentRecords(_directory() / name.hexdigest()[:32])
        try:
            await links.open()
        except StoreError:
            await links.close()
            raise
    except StoreError as error:
        _log.warning("nothing can be pushed over HTTP: %s; $XDG_CACHE_HOME names another place", error)
        return store

    async def close() -> None:
        await links.close()
        await store.close()

    return replace(store, links=links, close=close)


def _directory() -> Path:
    """`tvix-store/links` in the user's cache directory.

    Source: XDG Base Directory Specification 0.8, which says to ignore a relative $XDG_CACHE_HOME.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (cache if cache.is_absolute() else Path.home() / ".cache") / "tvix-store/links"
    except RuntimeError:
        raise UnavailableError("this user has no home, and so no cache directory") from None

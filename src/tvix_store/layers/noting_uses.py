"""noting_uses: a store notes the uses of its paths from the moment on at which somebody begins to remove what is unused.

A process may have opened the store long before. So it looks every ten minutes whether that is so, and at each put.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tvix_store.errors import StoreError
from tvix_store.layers.uses import UsedPathInfos, Uses
from tvix_store.operations.collection.hours import DAILY, Hours
from tvix_store.services.offer import Offer

S = TypeVar("S", bound=Offer)

_AGAIN = 600.0
"""Seconds between two looks."""
NOTED_EVERY = 1
"""The use of a path is noted once in so many hours."""
_log = logging.getLogger(__name__)


async def noting_uses(store: S, clock: Callable[[], float] = time.time) -> S:
    """The store, or offer, which notes the uses of its paths if unused paths are removed from it: then its hours have begun.

    A store that can remove nothing stays as it is.
    """
    if store.records is None or store.removal is None or store.path_infos is None or store.read_only:
        return store
    uses = Uses(store.records, Hours(store.records, clock, DAILY), NOTED_EVERY, is_noting=False)
    await uses.may_note()
    looking = asyncio.create_task(_look(uses))
    path_infos = UsedPathInfos(store.path_infos, uses)

    async def close() -> None:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await uses.close()
        await store.close()

    return replace(
        store.with_services(path_infos=path_infos, keep=("named_paths", "arrivals", "removal", "collection", "statistics")),
        close=close,
    )


async def _look(uses: Uses) -> None:
    while True:
        await asyncio.sleep(_AGAIN)
        try:
            if await uses.may_note():
                await uses.look()
        except StoreError as error:
            _log.warning("whether uses of paths are to be noted is not known: %s", error)

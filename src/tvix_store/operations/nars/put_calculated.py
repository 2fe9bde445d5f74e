"""put_calculated: a path info is put while all that it needs is there, whatever is deleted meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

from tvix_store.errors import ForgottenError, UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store

_TRIES = 5
"""How often a NAR is calculated whose facts are forgotten at once: a collection forgets some twice a run."""


async def put_calculated(store: Store, path_info: PathInfo, trust: Trust = NOBODY) -> PathInfo:
    """Put the path info of content that is in the store, and whose facts are known. It must still be all there.

    Raises:
        NotFoundError: a part of the content is gone.
        StoreError: as `PathInfoService.put`.
    """
    if store.known_nars is None:
        return await store.path_infos.put(path_info, trust)
    try:
        return await store.path_infos.put(path_info, trust, calculated=True)
    except ForgottenError:
        return await put_after(store.path_infos, partial(store.nar.calculate, path_info.node), path_info, trust)


async def put_after(
    path_infos: PathInfoService,
    calculate: Callable[[], Awaitable[object]],
    path_info: PathInfo,
    trust: Trust = NOBODY,
    requires: Collection[StorePath] = (),
) -> PathInfo:
    """Calculate the NAR, and put the path info; once more, where the facts of the NAR are forgotten in between.

    Raises:
        UnavailableError: they are forgotten again and again.
        StoreError: as `PathInfoService.put`, or what `calculate` raises.
    """
    for _ in range(_TRIES):
        await calculate()
        with suppress(ForgottenError):
            return await path_infos.put(path_info, trust, requires=requires, calculated=True)
    raise UnavailableError(f"path info of {path_info.store_path}: what it needs was just collected; try again")

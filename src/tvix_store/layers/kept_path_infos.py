"""KeptPathInfos: path infos that stand elsewhere than the content that they need."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager

from tvix_store.errors import ForgottenError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.nar import KnownNars
from tvix_store.services.path_infos import PathInfoService


class KeptPathInfos(PassingPathInfos):
    """Before a put, it looks whether the facts of the NAR are known. `keeping` keeps the content until the put is done."""

    def __init__(
        self, inner: PathInfoService, known_nars: KnownNars | None, keeping: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        super().__init__(inner)
        self._known_nars = known_nars
        self._keeping = keeping

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        async with self._keeping():
            if calculated and self._known_nars is not None and await self._known_nars.get(path_info.node) is None:
                raise ForgottenError(f"what was known of the NAR of {path_info.store_path} is forgotten")
            return await self._inner.put(path_info, trust, requires=requires)

"""A layer: path infos whose names are checked before they are stored."""

from __future__ import annotations

import re
from collections.abc import Collection

from tvix_store import DeniedError, PathInfo, StorePath
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services import PathInfoService


class OnlyNamed(PassingPathInfos):
    """A PathInfoService that refuses store paths whose names a pattern does not fit, with DeniedError."""

    def __init__(self, inner: PathInfoService, pattern: str) -> None:
        super().__init__(inner)
        self._pattern = re.compile(pattern)

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        if not self._pattern.fullmatch(path_info.store_path.name):
            raise DeniedError(f"{path_info.store_path.name} is stored elsewhere: names here fit {self._pattern.pattern}")
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)

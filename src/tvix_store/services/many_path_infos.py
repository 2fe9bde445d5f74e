"""ManyPathInfos: an optional power of a store, to take the path infos of a closure together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tvix_store.model.path_info import PathInfo


class ManyPathInfos(Protocol):
    """Takes path infos that refer to each other."""

    async def put_many(self, path_infos: Sequence[PathInfo], /) -> list[PathInfo]:
        """Store path infos, each after those that it refers to, and return the stored ones in order. Those that stand before a path
        info are put first, if it refers to them.

        Raises: as `PathInfoService.put`, for any of them; others may have been put.
        """
        ...

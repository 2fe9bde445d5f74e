"""ListedNames: the NamedPaths of a store that can list its path infos fast."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.model.package_name import PackageName, nearest_first
from tvix_store.model.store_path import StorePath
from tvix_store.services.path_infos import PathInfoService

_SHARE = 0.05
"""The part of the time that may go into making lists: one of 100,000 paths takes a second or so, and is used for 20."""
_LEAST = 0.1
"""Seconds for which a list is used at least."""
_MOST = 1_000_000
"""Paths that are remembered: some 200 MB at the most, 20 MB for 100,000."""


class ListedNames:
    """Remembers the names of all paths, from the first question on."""

    def __init__(self, path_infos: PathInfoService) -> None:
        self._path_infos = path_infos
        self._lists = SingleFlight(self._begin)
        self._by_package: dict[tuple[str, str], list[StorePath]] = {}
        self._until = 0.0

    async def versions(self, path: StorePath) -> Sequence[StorePath]:
        if self._until <= asyncio.get_running_loop().time():
            await self._lists.result(None)
        name = PackageName.of(path.name)
        return nearest_first(path, self._by_package.get((name.package, name.output), ()))

    def _begin(self, _: None) -> asyncio.Task[None]:
        return asyncio.create_task(self._list())

    async def _list(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        by_package: dict[tuple[str, str], list[StorePath]] = {}
        yielder = Yielder()
        count = 0
        async for path_info in self._path_infos.list():
            path = path_info.store_path
            name = PackageName.of(path.name)
            by_package.setdefault((name.package, name.output), []).append(path)
            count += 1
            if count == _MOST:
                break
            await yielder.step()
        self._by_package = by_package
        now = clock()
        self._until = now + max(_LEAST, (now - began) / _SHARE)

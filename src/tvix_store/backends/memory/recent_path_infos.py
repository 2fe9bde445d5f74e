"""RecentPathInfos: the path infos that were used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from tvix_store.backends.memory.path_infos import MemoryPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust


class RecentPathInfos(MemoryPathInfos):
    """A PathInfoService in memory that forgets those that were not used for the longest time, of more than `capacity`."""

    _path_infos: OrderedDict[bytes, PathInfo]

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._path_infos = OrderedDict()
        """The one that was used last stands last."""

    async def get(self, output_hash: bytes) -> PathInfo | None:
        found = await super().get(output_hash)
        if found is not None:
            self._path_infos.move_to_end(output_hash)
        return found

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = {each: await self.get(each) for each in output_hashes}
        return {each: path_info for each, path_info in found.items() if path_info is not None}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        stored = await super().put(path_info, trust, requires=requires, calculated=calculated)
        self._path_infos.move_to_end(stored.store_path.output_hash)
        while len(self._path_infos) > self._capacity:
            self._path_infos.popitem(last=False)
        return stored

"""RecentPathInfos: the path infos that were used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence

from tvix_store.errors import IncompleteError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust


class RecentPathInfos:
    """A PathInfoService in memory that forgets those that were not used for the longest time, of more than `capacity`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._path_infos: OrderedDict[bytes, PathInfo] = OrderedDict()
        """The one that was used last stands last."""

    async def get(self, output_hash: bytes) -> PathInfo | None:
        found = self._path_infos.get(output_hash)
        if found is not None:
            self._path_infos.move_to_end(output_hash)
        return found

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = {each: await self.get(each) for each in output_hashes}
        return {each: path_info for each, path_info in found.items() if path_info is not None}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return {each: self._path_infos[each].store_path for each in output_hashes if each in self._path_infos}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        key = path_info.store_path.output_hash
        for required in requires:
            if required.output_hash not in self._path_infos:
                raise IncompleteError(f"{path_info.store_path} refers to {required}, not in the store; put that first")
        known = self._path_infos.get(key)
        stored = self._path_infos[key] = path_info if known is None else known.merged(path_info, trust)
        self._path_infos.move_to_end(key)
        while len(self._path_infos) > self._capacity:
            self._path_infos.popitem(last=False)
        return stored

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        for _, path_info in sorted(each for each in self._path_infos.items() if each[0] > after):
            yield path_info

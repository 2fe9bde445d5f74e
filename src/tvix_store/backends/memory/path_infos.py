"""MemoryPathInfos: path infos in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust


class MemoryPathInfos:
    """A PathInfoService in memory."""

    def __init__(self) -> None:
        self._path_infos: dict[bytes, PathInfo] = {}

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return self._path_infos.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        return {each: self._path_infos[each] for each in output_hashes if each in self._path_infos}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return {each: self._path_infos[each].store_path for each in output_hashes if each in self._path_infos}

    async def put(self, path_info: PathInfo, trust: Trust = NOBODY) -> PathInfo:
        key = path_info.store_path.output_hash
        known = self._path_infos.get(key)
        stored = path_info if known is None else known.merged(path_info, trust)
        self._path_infos[key] = stored
        return stored

    async def list(self) -> AsyncIterator[PathInfo]:
        for _, path_info in sorted(self._path_infos.items()):
            yield path_info

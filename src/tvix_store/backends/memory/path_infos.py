"""MemoryPathInfos: path infos in a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from tvix_store.backends.memory.records import MemoryRecords
from tvix_store.errors import IncompleteError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.removal import Guard, read_hour, used_key


class MemoryPathInfos:
    """A PathInfoService in memory, and the Removal of its paths."""

    def __init__(self, records: MemoryRecords | None = None) -> None:
        self._records = records or MemoryRecords()
        self._path_infos: dict[bytes, PathInfo] = {}

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return self._path_infos.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        return {each: self._path_infos[each] for each in output_hashes if each in self._path_infos}

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
        stored = path_info if known is None else known.merged(path_info, trust)
        self._path_infos[key] = stored
        return stored

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        for _, path_info in sorted(each for each in self._path_infos.items() if each[0] > after):
            yield path_info

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        """As `Removal.remove`."""
        if guard is not None and await self._records.get(guard.key) != guard.value:
            return set()
        gone = {each for each in output_hashes if each in self._path_infos}
        if unused_since is not None:
            hours = {each: await self._records.get(used_key(each)) for each in gone}
            gone -= {each for each, hour in hours.items() if hour is not None and read_hour(hour) >= unused_since}
        while needed := set() if ignore_references else self._needed(gone):
            gone -= needed
        for each in gone:
            del self._path_infos[each]
        await self._records.delete([used_key(each) for each in gone])
        return gone

    def _needed(self, gone: Collection[bytes]) -> set[bytes]:
        """Those among `gone` to which others refer."""
        others = (path_info for key, path_info in self._path_infos.items() if key not in gone)
        return {each.output_hash for other in others for each in other.references if each.output_hash in gone}

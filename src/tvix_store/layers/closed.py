"""ClosedPathInfos: takes a path info only if the store has all that it refers to."""

from __future__ import annotations

from collections.abc import Collection

from tvix_store.errors import IncompleteError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.paths.check import missing_references
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store


class ClosedPathInfos(PassingPathInfos):
    """A PathInfoService that looks for references in `store`: so whoever fetches a path can fetch its closure too."""

    def __init__(self, store: Store, inner: PathInfoService) -> None:
        super().__init__(inner)
        self._store = store

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`.

        Raises:
            IncompleteError: the store neither has a reference nor could fetch it.
        """
        missing = await missing_references(self._store, path_info)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise IncompleteError(f"{path_info.store_path} refers to {missing[0]}{more}, not in the store; put that first")
        return await self._inner.put(path_info, trust, requires=[*requires, *await self._own(path_info)])

    async def _own(self, path_info: PathInfo) -> list[StorePath]:
        """The references that the store has itself: it may remove them before the path info is put."""
        references = [each for each in path_info.references if each != path_info.store_path]
        foreign = self._store.foreign_paths
        return references if foreign is None else [each for each in references if await foreign.kept(each.output_hash) is not None]

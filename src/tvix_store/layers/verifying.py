"""VerifyingPathInfos: takes a path info only if it is true of what the store holds."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from tvix_store.errors import IncompleteError, InvalidError, NotFoundError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.nars.put_calculated import put_after
from tvix_store.services.nar import NarService
from tvix_store.services.path_infos import PathInfoService


class VerifyingPathInfos(PassingPathInfos):
    """A PathInfoService that checks content, NAR size and NAR hash before it hands a path info on.

    That the name is a store path's, and that references and their names match, a `PathInfo` checks itself.
    """

    def __init__(self, inner: PathInfoService, nar: NarService) -> None:
        super().__init__(inner)
        self._nar = nar

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`.

        Raises:
            IncompleteError: a blob or directory that the root node reaches is not in the store.
            InvalidError: the NAR size or hash is not that of the root node, or a node states a wrong size.
        """
        return await put_after(self._inner, partial(self._check, path_info), path_info, trust, requires)

    async def _check(self, path_info: PathInfo) -> None:
        try:
            true = await self._nar.calculate(path_info.node)
        except NotFoundError as error:
            raise IncompleteError(f"path info of {path_info.store_path}: {error}; put it first") from error
        stated = path_info.nar
        if stated.size != true.size:
            raise InvalidError(f"path info of {path_info.store_path}: nar_size is {stated.size}, but the NAR has {true.size} bytes")
        if stated.sha256 != true.sha256:
            raise InvalidError(
                f"path info of {path_info.store_path}: nar_sha256 is {stated.sha256.hex()}, but the NAR's is {true.sha256.hex()}"
            )

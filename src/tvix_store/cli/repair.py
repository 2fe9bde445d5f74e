"""Repair: paths of a store are brought once more from another one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tvix_store.cli.copy_outcomes import Outcomes
from tvix_store.cli.copy_stores import copying_into
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.key_files import read_public_keys
from tvix_store.config import verified
from tvix_store.errors import StoreError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.granular.account import Account
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store


async def repaired(invocation: Invocation, store: Store, source: str, keys: Sequence[str], path_infos: Sequence[PathInfo]) -> None:
    """Bring paths of `store` once more from `source`. Tells why a path cannot be brought, and goes on.

    Raises:
        InvalidError: a key is malformed.
    """
    unrecorded = Unrecorded(store.path_infos, {each.store_path.output_hash for each in path_infos})
    target = verified(store.with_services(path_infos=unrecorded))
    outcomes = Outcomes()
    trusted = read_public_keys(keys)
    for path_info in path_infos:
        names = [path_info.store_path.absolute(store.store_dir)]
        try:
            async for _ in outcomes.noted(
                copying_into(invocation, outcomes, source, target, names, trusted, Account(), closure=True)
            ):
                pass
        except StoreError as error:
            outcomes.add(error)


class Unrecorded(PassingPathInfos):
    """A PathInfoService that tells nothing of some paths until they are put. So a copy brings them, though they are there."""

    def __init__(self, inner: PathInfoService, output_hashes: set[bytes]) -> None:
        super().__init__(inner)
        self._hidden = output_hashes

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return None if output_hash in self._hidden else await self._inner.get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        return await self._inner.get_many([each for each in output_hashes if each not in self._hidden])

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return await self._inner.existing([each for each in output_hashes if each not in self._hidden])

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        stored = await self._inner.put(path_info, trust, requires=requires, calculated=calculated)
        self._hidden.discard(path_info.store_path.output_hash)
        return stored

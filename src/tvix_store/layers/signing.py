"""SigningPathInfos: each path info is signed when it is put."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import MAX_UNKNOWN, NOBODY, Trust
from tvix_store.operations.paths.check import proves_content_address
from tvix_store.services.store import Store


class SigningPathInfos(PassingPathInfos):
    """The path infos of `store`, each signed with a key before it is put. That NAR size and hash are true must have been checked.

    Signatures that bear the name of the key, and came along, are left out.
    """

    def __init__(self, store: Store, key: SecretKey) -> None:
        super().__init__(store.path_infos)
        self._store = store
        self._key = key

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`.

        Raises:
            InvalidError: the content address is wrong.
        """
        await proves_content_address(self._store, path_info)
        message = path_info.fingerprint(self._store.store_dir)
        others = [each for each in path_info.signatures if each.name != self._key.name]
        signed = replace(path_info, signatures=(*_with_room(others, trust, message), self._key.sign(message)))
        # The key is not among the trusted ones: it vouches for no deriver, which anybody may have stated.
        return await self._inner.put(signed, trust, requires=requires, calculated=calculated)


def _with_room(signatures: list[Signature], trust: Trust, message: bytes) -> list[Signature]:
    """The signatures, of which so many are left out that there is a place for one more; those by trusted keys are kept."""
    if len(signatures) < MAX_UNKNOWN:
        return signatures
    good = trust.good(signatures, message)
    others = [each for each in signatures if each not in good]
    return [*good, *others][: MAX_UNKNOWN - 1]

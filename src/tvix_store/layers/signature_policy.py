"""SignaturePolicy: takes a path info only if its signatures and content address are right and, where wanted, vouch for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tvix_store.errors import DeniedError
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import MAX_UNKNOWN, NOBODY, Trust
from tvix_store.operations.paths.check import check_signatures, proves_content_address
from tvix_store.services.store import Store


class SignaturePolicy(PassingPathInfos):
    """The path infos of `store`, whose puts are checked. That NAR size and hash are true must have been checked before.

    Signatures that bear the name of a key in `keys` must be that key's. With `required`, a path needs one of them, unless it
    follows from its content.
    """

    def __init__(self, store: Store, keys: Sequence[PublicKey], *, required: bool) -> None:
        super().__init__(store.path_infos)
        self._store = store
        self._trust = Trust(tuple(keys), store.store_dir)
        self._required = required

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """As `PathInfoService.put`, by the trust of this layer.

        Raises:
            InvalidError: a signature, or the content address, is wrong, or there are too many signatures by unknown keys.
            DeniedError: nobody who is trusted vouches for the path.
        """
        good = check_signatures(path_info, self._trust.keys, self._store.store_dir)
        proven = await proves_content_address(self._store, path_info)
        if self._required and not (good or proven):
            raise DeniedError(f"{path_info.store_path} has no signature by a trusted key, and its content does not prove it")
        if len(path_info.signatures) > MAX_UNKNOWN:
            message = path_info.fingerprint(self._store.store_dir)
            path_info = replace(path_info, signatures=self._trust.united((), path_info.signatures, message))
        return await self._inner.put(path_info, self._trust, requires=requires, calculated=calculated)

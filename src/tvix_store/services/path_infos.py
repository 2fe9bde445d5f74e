"""PathInfoService: path infos by output hash."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust


class PathInfoService(Protocol):
    """Stores path infos. An acknowledged put survives a power cut, with all content that the path info reaches."""

    async def get(self, output_hash: bytes) -> PathInfo | None:
        """The path info of an output hash (20 bytes), or None if it is not there."""
        ...

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        """The path infos that there are of these output hashes, by hash, as `get` each."""
        ...

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        """The store paths that there are of these output hashes, by hash. Nothing is fetched.

        Where path infos come from an upstream, that are also the paths that it credibly has.
        """
        ...

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        """Store a path info, and return the stored one: merged with an older one by `PathInfo.merged`, by this trust.

        A backend checks nothing; `layers.verifying` checks that the path info is true. Only the paths that it `requires` must
        be there at the moment of the put: they may just be removed. And where the NAR was `calculated`, its facts must still be
        known: its content may just be deleted. A store that removes and deletes nothing need not look.

        Raises:
            ForgottenError: the facts of the NAR are not known any more.
            IncompleteError: a path that it requires is not there.
            ConflictError: the path is there with another name, NAR hash or references.
            InvalidError: there is no place for its signatures.
            ExhaustedError: the disk is full.
        """
        ...

    def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        """All path infos, ordered by output hash; of these, those behind the output hash `after`, which need not be there."""
        ...

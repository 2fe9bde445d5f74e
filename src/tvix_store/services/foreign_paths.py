"""ForeignPaths: store paths that upstream caches have."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Protocol

from tvix_store.errors import UnavailableError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo


class FetchBrokeOffError(UnavailableError):
    """A NAR broke off, or was false, whose beginning a client has. The log tells what the upstream did."""


class Fetch(Protocol):
    """A path on its way into the store."""

    def beginning(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the NAR from its beginning, while they come. They are not verified yet, and never the whole of a false NAR.

        They end early where the path comes in another way, or the reader is slower than the fetch. To be called once.
        """
        ...

    async def result(self) -> PathInfo:
        """The path info, when the path is stored. Then the NAR that was wanted was verified, and all of `beginning` was right.

        Raises:
            NotFoundError: no upstream gives the path with this NAR.
            FetchBrokeOffError: what `beginning` gave was of a NAR that broke off, or was false.
            StoreError: an error of the store.
        """
        ...


class ForeignPaths(Protocol):
    """The paths of upstream caches, beside those that the store has."""

    async def kept(self, output_hash: bytes) -> PathInfo | None:
        """The path info of an output hash (20 bytes) in the store itself. No upstream is asked."""
        ...

    async def offered(self, output_hash: bytes, nar_sha256: bytes | None = None) -> NarInfo | None:
        """What an upstream says, credibly, of a path, with this NAR where it is given. Nothing is fetched, and nothing verified.

        Where no NAR is given, upstreams are asked for the references too: a client will ask for these next.
        """
        ...

    def fetch(self, output_hash: bytes, nar_sha256: bytes) -> AbstractContextManager[Fetch]:
        """Fetch a path with this NAR into the store, or join a fetch of the path that is under way.

        The fetch is called off when all who have joined it have left.
        """
        ...

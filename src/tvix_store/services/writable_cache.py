"""WritableCache: a binary cache that takes files of NARs and narinfos."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import NamedTuple, Protocol

from tvix_store.model.narinfo import NarInfo
from tvix_store.model.store_path import StorePath


class NarFile(NamedTuple):
    """The file of a NAR in a cache: its URL relative to the cache, its size (bytes) and its SHA-256 (32 bytes)."""

    url: str
    size: int
    sha256: bytes


class WritableCache(Protocol):
    """Takes NARs first, and then the narinfos that name them. Whatever interrupts, each file is whole under its name.

    Several writers may be at work at the same time.
    """

    @property
    def name(self) -> str:
        """For messages; holds no secrets."""
        ...

    async def prepare(self) -> None:
        """Make the cache where there is none. To be called before anything else.

        Raises:
            InvalidError: it is a cache for another store directory, or there is something else in its place.
            DeniedError, ExhaustedError, UnavailableError: it cannot be made.
        """
        ...

    async def get_many(self, output_hashes: Sequence[bytes], /) -> dict[bytes, NarInfo]:
        """The narinfos of these output hashes (20 bytes each), by hash. A narinfo whose NAR is missing is left out."""
        ...

    async def existing(self, output_hashes: Sequence[bytes], /) -> dict[bytes, StorePath]:
        """The store paths that there are of these output hashes, by hash."""
        ...

    async def put_nar(self, file: AsyncIterable[bytes], suffix: str) -> NarFile:
        """Store the file of a NAR, durably. `suffix` tells its compression.

        What `file` raises ends it, and nothing is stored then.

        Raises:
            DeniedError, ExhaustedError, UnavailableError: it cannot be written.
        """
        ...

    async def put(self, narinfo: NarInfo, /) -> None:
        """Store a narinfo, durably. An older one of the same path stays, and gets new signatures: see `NarInfo.merged`.

        Raises:
            ConflictError: the path is there with another name, NAR hash or references.
            InvalidError: there is no place for its signatures, or the older one cannot be read.
            DeniedError, ExhaustedError, UnavailableError: it cannot be written.
        """
        ...

    async def close(self) -> None:
        """Tidy up. Call it when done."""
        ...

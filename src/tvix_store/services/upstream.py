"""Upstream: a binary cache elsewhere. Nothing that it says is trusted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.model.narinfo import NarInfo
from tvix_store.services.store import Store

DEFAULT_PRIORITY = 50
"""Priority of a cache that states none, as for Nix."""


class UpstreamDownError(UnavailableError):
    """An upstream does not answer, or not to the end."""


class UpstreamStalledError(UpstreamDownError):
    """An upstream takes too long. To try it once more would take as long."""


class UpstreamFailsError(UpstreamDownError):
    """An upstream answers, but with a status that tells of trouble."""


class UpstreamLacksError(UnavailableError):
    """An upstream does not have a file."""


class UpstreamLiesError(InvalidError):
    """An upstream's answer is malformed, refused, or not what it claims to be."""


class Upstream(Protocol):
    """Offers store paths as narinfos and NAR files. The user of an upstream checks everything."""

    @property
    def name(self) -> str:
        """For messages; holds no secrets."""
        ...

    async def priority(self) -> int:
        """Among several: the lowest is asked first. To be asked for before anything else.

        Raises:
            UpstreamDownError: it cannot be learned.
            UpstreamLiesError: this is no cache for our store directory.
        """
        ...

    async def narinfo(self, output_hash: bytes) -> NarInfo | None:
        """The upstream's narinfo of an output hash (20 bytes), or None if it lacks the path.

        Raises:
            UpstreamDownError, UpstreamLiesError: there is no answer, or none that can be read.
        """
        ...

    async def content(self) -> Store | None:
        """The store behind the cache, if it lets others read the parts of its content. It is closed with the cache.

        None where it does not, or cannot be reached.
        """
        ...

    def nar_file(self, narinfo: NarInfo) -> AsyncGenerator[bytes, None]:
        """The file at `narinfo.url`, which is a NAR compressed by `narinfo.compression`. Nothing is read ahead but some pieces.

        Close it where it is left before its end.

        Raises:
            UpstreamLacksError: it is not there.
            UpstreamDownError: it does not come, or breaks off.
            UpstreamStalledError: it stops, or comes too slowly.
            UpstreamLiesError: its URL leads where it must not.
        """
        ...

    async def document(self, path: str, most: int) -> bytes | None:
        """The file at `path`, which is relative to the cache, of at most `most` bytes; None where it is not there.

        Raises:
            UpstreamFailsError: the upstream has trouble with this file, which tells nothing about others.
            UpstreamDownError, UpstreamLiesError: as `narinfo`.
        """
        ...

    def stream(self, path: str, most: int) -> AsyncGenerator[bytes, None]:
        """The same, in pieces as they come. Close it where it is left before its end.

        Raises:
            UpstreamLacksError: it is not there.
            UpstreamDownError, UpstreamFailsError, UpstreamLiesError: as `document`.
        """
        ...

    async def close(self) -> None:
        """Let go of its connections."""
        ...

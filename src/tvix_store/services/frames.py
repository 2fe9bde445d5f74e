"""StoredFrames: an optional power of a backend that keeps chunks as zstd frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tvix_store.model.digest import Digest


class Span(NamedTuple):
    """`size` bytes at `offset` of one of the backend's files, which it knows by a number."""

    file: int
    offset: int
    size: int


class Frame(NamedTuple):
    """A chunk as it is stored: its digest (32 bytes) and length (bytes), and where it lies.

    It is one zstd frame where `span` is smaller than the chunk, and the chunk itself where they have the same size.
    """

    digest: bytes
    length: int
    span: Span


class StoredFrames(Protocol):
    """Gives out content as it is stored, to be passed on without decompressing it, and keeps plans for doing so."""

    @property
    def generation(self) -> int:
        """Changes when something may lie elsewhere than it did: what was damaged and is stored anew. Older plans are outdated."""
        ...

    async def look(self) -> None:
        """Let `generation` tell of what is gone by now, though nobody has read it yet."""
        ...

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        """The chunks of each blob, in order.

        Raises:
            NotFoundError: a blob is not there.
            CorruptError: a chunk of one is not.
        """
        ...

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, not verified. Blocks: call it in a thread.

        Raises:
            CorruptError: they are not there.
        """
        ...

    def check(self, frame: Frame, stored: bytes) -> None:
        """Hold a chunk, whose stored bytes were read, against its digest. Blocks: call it in a thread.

        Raises:
            CorruptError: they do not match; the backend looks into it.
        """
        ...

    async def get_plan(self, key: bytes) -> bytes | None:
        """The plan that was kept in this generation under `key` (32 bytes), or None."""
        ...

    async def put_plan(self, key: bytes, plan: bytes) -> None:
        """Keep a plan; it may get lost."""
        ...

"""HeldStaging: the stages of a named cache, which holds their content once it is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tvix_store.layers.holding.blobs import HeldBlobs
from tvix_store.layers.holding.content import HeldContent
from tvix_store.layers.holding.directories import HeldDirectories
from tvix_store.layers.holding.nars import HeldNars
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.staging import NO_RECORDS, Stage, StagedNar, Staging

_SIZE = 32
"""Bytes of a digest."""
_AT_ONCE = 1000
"""Digests that are looked at together."""


class HeldStaging:
    """A Staging over `inner`. Content that is accepted there is `taken` into what the cache holds."""

    def __init__(self, inner: Staging, taken: HeldContent, known_nars: HeldNars) -> None:
        self._inner = inner
        self._taken = taken
        self._known_nars = known_nars

    def begin(self, *, rechecks: bool = False) -> Stage:
        return _HeldStage(self._inner.begin(rechecks=rechecks), self._taken, self._known_nars)


class _HeldStage:
    def __init__(self, inner: Stage, taken: HeldContent, known_nars: HeldNars) -> None:
        self._inner = inner
        self._taken = taken
        self._known_nars = known_nars
        self._size = 0
        """Bytes of the blobs that were sent."""
        # The digests one behind the other: as objects, those of a million files would take 100 MB.
        self._sent_blobs = bytearray()
        self._sent_directories = bytearray()
        self.blobs: BlobService = HeldBlobs(inner.blobs, taken.held, self._admit, self._note_blobs)
        self.directories: DirectoryService = HeldDirectories(inner.directories, taken.held, self._note_directories)

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        await self._inner.accept(nar, records)
        for digests in _batches(self._sent_blobs):
            await self._taken.take_blobs(digests)
        for digests in _batches(self._sent_directories):
            await self._taken.take_directories(digests)
        if nar is not None:
            await self._known_nars.put(nar.node, nar.facts)

    async def close(self) -> None:
        await self._inner.close()

    async def _admit(self, size: int) -> None:
        await self._taken.quota.admit(self._size + size)

    async def _note_blobs(self, digests: Sequence[Digest], size: int) -> None:
        self._size += size
        self._sent_blobs += b"".join(digest.raw for digest in digests)

    async def _note_directories(self, digests: Sequence[Digest]) -> None:
        self._sent_directories += b"".join(digest.raw for digest in digests)


def _batches(raw: bytearray) -> Iterator[list[Digest]]:
    """The digests in `raw`, some at a time."""
    for at in range(0, len(raw), _AT_ONCE * _SIZE):
        batch = bytes(raw[at : at + _AT_ONCE * _SIZE])
        yield [Digest(batch[each : each + _SIZE]) for each in range(0, len(batch), _SIZE)]

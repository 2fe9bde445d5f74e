"""HeldStaging: the stages of a named cache, which holds their content once it is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tvix_store.layers.holding.blobs import HeldBlobs, hold_blobs
from tvix_store.layers.holding.directories import HeldDirectories
from tvix_store.layers.holding.held import Held, Kind
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
    """A Staging over `inner`; `blobs` are where its accepted content is then found."""

    def __init__(self, inner: Staging, held: Held, blobs: BlobService, known_nars: HeldNars) -> None:
        self._inner = inner
        self._held = held
        self._blobs = blobs
        self._known_nars = known_nars

    def begin(self, *, rechecks: bool = False) -> Stage:
        return _HeldStage(self._inner.begin(rechecks=rechecks), self._held, self._blobs, self._known_nars)


class _HeldStage:
    def __init__(self, inner: Stage, held: Held, blobs: BlobService, known_nars: HeldNars) -> None:
        self._inner = inner
        self._held = held
        self._blobs = blobs
        self._known_nars = known_nars
        # The digests one behind the other: as objects, those of a million files would take 100 MB.
        self._sent_blobs = bytearray()
        self._sent_directories = bytearray()
        self.blobs: BlobService = HeldBlobs(inner.blobs, held, self._note_blobs)
        self.directories: DirectoryService = HeldDirectories(inner.directories, held, self._note_directories)

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        await self._inner.accept(nar, records)
        for digests in _batches(self._sent_blobs):
            await hold_blobs(self._blobs, self._held, digests)
        for digests in _batches(self._sent_directories):
            await self._held.add(Kind.DIRECTORY, digests)
        if nar is not None:
            await self._known_nars.put(nar.node, nar.facts)

    async def close(self) -> None:
        await self._inner.close()

    async def _note_blobs(self, digests: Sequence[Digest]) -> None:
        self._sent_blobs += b"".join(digest.raw for digest in digests)

    async def _note_directories(self, digests: Sequence[Digest]) -> None:
        self._sent_directories += b"".join(digest.raw for digest in digests)


def _batches(raw: bytearray) -> Iterator[list[Digest]]:
    """The digests in `raw`, some at a time."""
    for at in range(0, len(raw), _AT_ONCE * _SIZE):
        batch = bytes(raw[at : at + _AT_ONCE * _SIZE])
        yield [Digest(batch[each : each + _SIZE]) for each in range(0, len(batch), _SIZE)]

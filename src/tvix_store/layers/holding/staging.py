"""HeldStaging: the stages of a named cache, which holds their content once it is accepted."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from tvix_store.layers.holding.blobs import HeldBlobs
from tvix_store.layers.holding.content import HeldContent
from tvix_store.layers.holding.directories import HeldDirectories
from tvix_store.layers.holding.nars import HeldNars
from tvix_store.layers.holding.quota import Room
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.staging import NO_RECORDS, Stage, StagedNar, Staging

_ROW = struct.Struct("<32sQ")
"""A digest, and a size where that counts."""
_AT_ONCE = 1000
"""Rows that are looked at together."""


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
        self._since = known_nars.begin()
        self._room = Room(taken.quota)
        # Rows one behind the other: as objects, those of a million files would take 100 MB.
        self._sent_blobs = bytearray()
        self._sent_directories = bytearray()
        self.blobs: BlobService = HeldBlobs(inner.blobs, taken.held, self._rooms, self._note_blobs)
        self.directories: DirectoryService = HeldDirectories(inner.directories, taken.held, self._rooms, self._note_directories)

    def new_bytes(self) -> int:
        return self._inner.new_bytes()

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        await self._room.grow(0)  # other processes may have taken the room meanwhile
        await self._inner.accept(nar, records)
        step = _AT_ONCE * _ROW.size
        for at in range(0, len(self._sent_blobs), step):
            await self._taken.take_blobs([Digest(raw) for raw, _ in _ROW.iter_unpack(self._sent_blobs[at : at + step])])
        for at in range(0, len(self._sent_directories), step):
            rows = _ROW.iter_unpack(self._sent_directories[at : at + step])
            await self._taken.take_directories({Digest(raw): size for raw, size in rows})
        if nar is not None:
            await self._known_nars.put(nar.node, nar.facts, self._since)

    async def close(self) -> None:
        self._room.give_back()
        await self._inner.close()

    def _rooms(self) -> nullcontext[Room]:
        """The room of the stage, which is kept until it is closed."""
        return nullcontext(self._room)

    async def _note_blobs(self, digests: Sequence[Digest]) -> None:
        self._sent_blobs += b"".join(_ROW.pack(digest.raw, 0) for digest in digests)

    async def _note_directories(self, sizes: Mapping[Digest, int]) -> None:
        self._sent_directories += b"".join(_ROW.pack(digest.raw, size) for digest, size in sizes.items())

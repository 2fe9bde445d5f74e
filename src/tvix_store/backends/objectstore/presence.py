"""Presence: which paths a put may rely on, while others remove paths.

Who removes paths condemns them first, then writes a new epoch, and looks then whether a path that was put meanwhile refers to one
of them. Who puts a path reads the epoch, looks whether its references are there, puts the path, and reads the epoch again. One of
both sees the other: either the put finds a new epoch, and looks again, or the removal finds the new path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.sealed import seal
from tvix_store.concurrency.each_at_once import missing_at_once

_FOLDER = "removals"
EPOCH = f"{_FOLDER}/epoch"
"""The object that every removal writes anew."""
_MOST = 200_000
"""Paths that are remembered: 20 MB."""


class Presence:
    """Remembers paths that were there in the present epoch, so that those that were just put need not be looked up again."""

    def __init__(self, bucket: Bucket, is_there: Callable[[bytes], Awaitable[bool]]) -> None:
        self._bucket = bucket
        self._is_there = is_there
        self._epoch: bytes | None = None
        self._known: set[bytes] = set()

    async def begin(self) -> bytes:
        """The present epoch."""
        epoch = await self._read()
        if epoch != self._epoch or len(self._known) > _MOST:
            self._epoch, self._known = epoch, set()
        return epoch

    async def missing(self, output_hashes: Collection[bytes], epoch: bytes) -> set[bytes]:
        """Those of the paths that are not there, in an `epoch` that was read before."""
        known = self._known if epoch == self._epoch else set[bytes]()
        asked = [each for each in output_hashes if each not in known]
        missing = await missing_at_once(self._is_there, asked)
        for each in asked:
            if each not in missing:
                self.note(each, epoch)
        return missing

    def note(self, output_hash: bytes, epoch: bytes) -> None:
        """Remember that a path is there. Without an epoch, nobody can tell for how long."""
        if epoch and epoch == self._epoch:
            self._known.add(output_hash)

    async def has_changed(self, epoch: bytes) -> bool:
        return await self._read() != epoch

    async def advance(self) -> float:
        """Write a new epoch: paths have been condemned. The time then (seconds since 1970), by the clock of the object store."""
        await self._bucket.put(EPOCH, seal(EPOCH, b""))
        return max([each.written async for page in self._bucket.list(_FOLDER) for each in page], default=0.0)

    async def _read(self) -> bytes:
        found = await self._bucket.get(EPOCH)
        return found.data if found else b"none"

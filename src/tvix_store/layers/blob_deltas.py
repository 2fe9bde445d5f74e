"""BlobDeltas: the Deltas of a store whose blobs are at hand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

from tvix_store.concurrency.thread_to_its_end import thread_to_its_end
from tvix_store.errors import ExhaustedError, IncompleteError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import BlobService, Chunk

_LINE = 16
"""Callers that may wait for their turn; the next ones are declined, and send chunks."""
_SHARE = 0.5
"""The part of a core that making deltas may take over time; _BURST seconds of it may come at once."""
_BURST = 30.0
_KEPT = 32 << 20
"""Bytes of deltas that are kept for who asks next: a fleet fetches the same release."""


class BlobDeltas:
    """Makes one delta at a time, each of at most 32 MiB from at most 32 MiB: it takes some 130 MB of memory meanwhile.

    Making has a budget, so that strangers cannot keep a core busy. Its results are kept for others.
    """

    def __init__(self, blobs: BlobService) -> None:
        self._blobs = blobs
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._kept: OrderedDict[tuple[Digest, Digest], bytes] = OrderedDict()
        self._kept_size = 0
        self._left = _BURST
        self._counted_at: float | None = None

    async def make(self, base: Digest, target: Chunk, most: int) -> bytes | None:
        from tvix_store.compression.delta import MAX_TARGET, make_delta

        kept = self._kept.get((base, target.digest))
        if kept is not None:
            self._kept.move_to_end((base, target.digest))
            return kept if len(kept) <= most else None
        if target.size > MAX_TARGET or self._waiting >= _LINE or not self._may_work():
            return None
        self._waiting += 1
        try:
            async with self._turn:
                began = asyncio.get_running_loop().time()
                try:
                    base_content = await self._content(base)
                    content = await self._content(target.digest)
                    if base_content is None or content is None or len(content) != target.size:
                        return None
                    delta = await thread_to_its_end(make_delta, base_content, content)
                finally:
                    self._left -= asyncio.get_running_loop().time() - began
        finally:
            self._waiting -= 1
        self._keep((base, target.digest), delta)
        return delta if len(delta) <= most else None

    async def apply(self, base: Digest, target: Chunk, delta: bytes) -> None:
        from tvix_store.compression.delta import MAX_TARGET, apply_delta

        if target.size > MAX_TARGET:
            raise InvalidError(f"a delta makes at most {MAX_TARGET} bytes, and not {target.size}")
        if self._waiting >= _LINE:
            raise ExhaustedError("too many deltas at a time; send chunks, or try again later")
        self._waiting += 1
        try:
            async with self._turn:
                base_content = await self._content(base)
                if base_content is None:
                    raise IncompleteError(f"blob {base}, the base of a delta, is not in the store, or too large")
                content = await thread_to_its_end(apply_delta, base_content, delta, target.size)
                if await asyncio.to_thread(Digest.of, content) != target.digest:
                    raise InvalidError(f"the delta does not make blob {target.digest}")
                stored = await self._blobs.put(_piece(content))
                assert stored == target.digest
        finally:
            self._waiting -= 1

    async def _content(self, digest: Digest) -> bytes | None:
        """A blob, or None where it is not there, or too large."""
        from tvix_store.compression.delta import MAX_BASE

        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self._blobs.read(digest, 0, MAX_BASE + 1):
                pieces.append(piece)
                size += len(piece)
        except NotFoundError:
            return None
        return b"".join(pieces) if size <= MAX_BASE else None

    def _may_work(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._counted_at is not None:
            self._left = min(_BURST, self._left + (now - self._counted_at) * _SHARE)
        self._counted_at = now
        return self._left > 0

    def _keep(self, key: tuple[Digest, Digest], delta: bytes) -> None:
        if len(delta) > _KEPT // 4 or key in self._kept:
            return
        self._kept[key] = delta
        self._kept_size += len(delta)
        while self._kept_size > _KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._kept_size -= len(oldest)


async def _piece(content: bytes) -> AsyncIterator[bytes]:
    yield content

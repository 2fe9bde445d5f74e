"""A NAR as zstd, without compressing it: the frames of its chunks as they are stored, and small frames for its tokens between them.

A zstd file is a sequence of frames (RFC 8878, section 3). The plan of such a file takes a walk through the directories and a lookup
for each chunk, so it is kept, in memory and by the backend. See docs/design/http.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator
from itertools import islice

from blake3 import blake3

from tvix_store.errors import CorruptError, StoreError
from tvix_store.model.nodes import Node, encode_node
from tvix_store.operations.hash_beside import HashBeside
from tvix_store.operations.nar_links import FileFacts
from tvix_store.operations.plan_zstd_nar import plan_zstd_nar
from tvix_store.operations.zstd_plan import Piece, Plan
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import StoredFrames

_KEPT = 48 << 20
"""Bytes of plans that are kept in memory."""
_PLANNING = 2
_AHEAD = 3
"""Pieces that are made at a time."""
_log = logging.getLogger(__name__)


class ZstdNars:
    """The NARs of a store as zstd files."""

    def __init__(self, directories: DirectoryService, frames: StoredFrames) -> None:
        self._directories = directories
        self._frames = frames
        self._kept: dict[Node, Plan] = {}
        self._planning = asyncio.Semaphore(_PLANNING)
        self._tasks: set[asyncio.Task[None]] = set()

    async def plan(self, node: Node) -> Plan:
        """How the file is made.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan_zstd_nar`.
        """
        plan = self._kept.get(node)
        if plan is None:
            async with self._planning:
                plan = (
                    self._kept.get(node)
                    or await self._remembered(node)
                    or await plan_zstd_nar(self._frames, self._directories, node)
                )
                self._keep(node, plan)
        return plan

    async def read(self, node: Node, plan: Plan, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the file from `start` up to `stop`; the next pieces are made while one is sent.

        Raises:
            CorruptError: stored content is damaged; nothing of the damaged piece is given out.
        """
        was_checked = plan.is_checked
        wanted = _overlapping(plan, start, stop)
        making: deque[tuple[asyncio.Future[bytes], int, int]] = deque()
        try:
            while True:
                for piece, first, last in islice(wanted, _AHEAD - len(making)):
                    making.append((asyncio.ensure_future(asyncio.to_thread(_made, self._frames, piece)), first, last))
                if not making:
                    return
                made, first, last = making.popleft()
                data = await made
                if not (was_checked or making) and len(plan.pieces) > 1 and plan.is_checked:
                    was_checked = True
                    self._begin(self._frames.put_plan(_key(node), plan.encode()))
                yield data if len(data) == last - first else data[first:last]
        except CorruptError:
            self._kept.pop(node, None)
            if was_checked:
                # The plan itself may be outdated: the next reader makes it anew, and finds out.
                self._begin(self._frames.put_plan(_key(node), b""))
            raise
        finally:
            for made, _, _ in making:
                made.cancel()

    async def file_facts(self, node: Node) -> FileFacts:
        """What is true of the file; it is made, and checked, to its end.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan` and `read`.
        """
        plan = await self.plan(node)
        sha256 = hashlib.sha256()
        hashing = HashBeside(sha256)
        async for piece in self.read(node, plan, 0, plan.size):
            await hashing.update(piece)
        await hashing.finish()
        return FileFacts(plan.size, sha256.digest())

    async def _remembered(self, node: Node) -> Plan | None:
        encoded = await self._frames.get_plan(_key(node))
        if not encoded:
            return None
        try:
            return Plan.decode(encoded)
        except CorruptError:
            return None

    def _keep(self, node: Node, plan: Plan) -> None:
        self._kept[node] = plan
        while len(self._kept) > 1 and sum(kept.cost for kept in self._kept.values()) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` beside; that it fails harms nobody."""

        async def quietly() -> None:
            try:
                await work
            except StoreError as error:
                _log.warning("a plan was not kept: %s", error)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _key(node: Node) -> bytes:
    return blake3(encode_node(b"", node)).digest()


def _overlapping(plan: Plan, start: int, stop: int) -> Iterator[tuple[Piece, int, int]]:
    """The pieces that `start` to `stop` touches, each with the part of it that is meant."""
    number = bisect_right(plan.ends, start)
    while number < len(plan.pieces):
        piece = plan.pieces[number]
        at = plan.ends[number] - piece.size
        if at >= stop:
            return
        yield piece, max(start - at, 0), min(stop - at, piece.size)
        number += 1


def _made(frames: StoredFrames, piece: Piece) -> bytes:
    """The output of a piece, checked. Blocks."""
    payloads = frames.read(piece.spans)
    data = piece.rendered(payloads)
    digest = blake3(data).digest()
    # Several readers may work on a piece at once. It loses its chunks after it got its digest, so they are looked at before that.
    chunks = piece.frames
    if not piece.digest:
        for frame, span, start in chunks:
            frames.check(frame, payloads[span][start : start + frame.span.size])
        piece.digest = digest
        piece.frames = []
    elif digest != piece.digest:
        raise CorruptError(f"stored content is damaged, or has moved: a piece of a NAR has digest {digest.hex()}")
    return data

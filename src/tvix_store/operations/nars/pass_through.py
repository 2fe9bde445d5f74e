"""NARs from stored frames; also as zstd without compressing: the chunks' frames, and small frames for the tokens between them.

A zstd file is a sequence of frames (RFC 8878, section 3). What a NAR is made of takes a walk through the directories and a lookup
for each chunk to find out, so its plan is kept, in memory and by the backend. See docs/design/http.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import TypeAlias

import zstandard
from blake3 import blake3

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.errors import CorruptError, StoreError
from tvix_store.model.nodes import Node, encode_node
from tvix_store.operations.nars.links import FileFacts
from tvix_store.operations.nars.plan import Piece, Plan
from tvix_store.operations.nars.planner import plan_nar
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import StoredFrames
from tvix_store.services.read_ahead import READ_AHEAD

_KEPT = 48 << 20
"""Bytes of plans that are kept in memory."""
_PLANNING = 2
_AT_ONCE = 1 << 20
"""Bytes that are made at a time, or a piece that is longer. As zstd, a piece is a third of that: a hop to a thread for each took
a tenth longer."""
_AHEAD = 2
"""How many times that much is made ahead of the reader, with what it gets next."""
_log = logging.getLogger(__name__)

_Part: TypeAlias = tuple[Piece, int, int]
"""A piece, and the part of its output that is meant."""
_Make: TypeAlias = Callable[[StoredFrames, Piece], bytes]


class PlannedNars:
    """The NARs of a store, made from its frames."""

    def __init__(self, directories: DirectoryService, frames: StoredFrames) -> None:
        self._directories = directories
        self._frames = frames
        self._kept: dict[Node, Plan] = {}
        """Plans of the present generation."""
        self._generation = frames.generation
        self._planning = asyncio.Semaphore(_PLANNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_through: set[Node] = set()
        """NARs in which damage is looked for."""

    @property
    def generation(self) -> int:
        """As `StoredFrames.generation`: zstd files of another one may have had other bytes."""
        return self._frames.generation

    async def look(self) -> None:
        """As `StoredFrames.look`."""
        await self._frames.look()

    async def plan(self, node: Node) -> Plan:
        """How the NAR is made.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan_nar`.
        """
        plan = self._in_memory(node)
        if plan is None:
            async with self._planning:
                plan = (
                    self._in_memory(node) or await self._remembered(node) or await plan_nar(self._frames, self._directories, node)
                )
                self._keep(node, plan)
        return plan

    async def known(self, node: Node) -> Plan | None:
        """As `plan`, but None where it has yet to be made."""
        plan = self._in_memory(node)
        if plan is None and (plan := await self._remembered(node)) is not None:
            self._keep(node, plan)
        return plan

    async def read(self, node: Node, plan: Plan, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the NAR from `start` up to `stop`; the next pieces are made while one is sent.

        Where something does not lie any more where the plan says, reading goes on by a new one: the bytes are the same by any.

        Raises:
            CorruptError: stored content is damaged; nothing of the damaged piece is given out.
            NotFoundError: content was found damaged, and forgotten.
        """
        at = start
        may_be_outdated = plan.is_checked
        while True:
            try:
                async with aclosing(self._read(node, plan, _overlapping(plan.pieces, plan.ends, at, stop), _nar_of)) as pieces:
                    async for piece in pieces:
                        yield piece
                        at += len(piece)
                return
            except CorruptError:
                if not may_be_outdated:
                    raise
            plan = await plan_nar(self._frames, self._directories, node)
            self._keep(node, plan)
            may_be_outdated = False

    def read_zstd(self, node: Node, plan: Plan, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """As `read`, of the zstd file, whose bytes depend on the plan: it breaks off where that is outdated.

        Raises:
            CorruptError: as `read`, and where the plan is outdated. The next reader gets a new one.
        """
        return self._read(node, plan, _overlapping(plan.pieces, plan.zstd_ends, start, stop), _zstd_of)

    async def _read(self, node: Node, plan: Plan, wanted: Iterator[_Part], make: _Make) -> AsyncGenerator[bytes, None]:
        with READ_AHEAD.room((_AHEAD + 1) * _AT_ONCE) as has_room:
            groups = _grouped(wanted, _AT_ONCE if has_room else 0)
            async with aclosing(self._pieces(node, plan, groups, make, _AHEAD if has_room else 1)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _pieces(
        self, node: Node, plan: Plan, groups: Iterator[list[_Part]], make: _Make, at_once: int
    ) -> AsyncGenerator[bytes, None]:
        """What the groups are; `at_once` of them are in memory."""
        was_checked = plan.is_checked
        making: deque[asyncio.Future[list[bytes]]] = deque()
        try:
            while True:
                for group in islice(groups, at_once - len(making)):
                    making.append(asyncio.ensure_future(asyncio.to_thread(_made, make, self._frames, group)))
                if not making:
                    return
                pieces = await making.popleft()
                if not (was_checked or making) and len(plan.pieces) > 1 and plan.is_checked:
                    was_checked = True
                    self._begin(self._frames.put_plan(_key(node), plan.encode()))
                for piece in pieces:
                    yield piece
        except CorruptError:
            self._kept.pop(node, None)
            if was_checked:
                # The plan itself may be outdated: the next reader makes it anew.
                self._begin(self._frames.put_plan(_key(node), b""))
            if node not in self._looked_through:
                self._looked_through.add(node)
                self._begin(self._look_through(node))
            raise
        finally:
            for made in making:
                made.cancel()

    async def file_facts(self, node: Node) -> FileFacts:
        """What is true of the zstd file; it is made, and checked, to its end.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan` and `read`.
        """
        plan = await self.plan(node)
        sha256 = hashlib.sha256()
        hashing = BackgroundHash(sha256)
        async for piece in self.read_zstd(node, plan, 0, plan.zstd_size):
            await hashing.update(piece)
        await hashing.finish()
        return FileFacts(plan.zstd_size, sha256.digest())

    async def _look_through(self, node: Node) -> None:
        """Find what is damaged, so that the NAR is offered no more: a piece that was checked before does not tell which chunk."""
        try:
            for piece in (await plan_nar(self._frames, self._directories, node)).pieces:
                await asyncio.to_thread(_check, self._frames, piece)
        except StoreError:
            pass  # some of it is missing, which tells as much
        finally:
            self._looked_through.discard(node)

    def _in_memory(self, node: Node) -> Plan | None:
        generation = self._frames.generation
        if generation != self._generation:
            self._kept.clear()
            self._generation = generation
        return self._kept.get(node)

    async def _remembered(self, node: Node) -> Plan | None:
        """The plan that the backend has kept; None where it has none that can be read: a plan can always be made anew."""
        try:
            encoded = await self._frames.get_plan(_key(node))
            return Plan.decode(encoded) if encoded else None
        except StoreError as error:
            _log.warning("a plan is made anew: %s", error)
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


def _overlapping(pieces: list[Piece], ends: list[int], start: int, stop: int) -> Iterator[_Part]:
    """The pieces, which end at `ends`, that `start` to `stop` touches."""
    for number in range(bisect_right(ends, start), len(pieces)):
        at = ends[number - 1] if number else 0
        if at >= stop:
            return
        yield pieces[number], max(start - at, 0), min(stop, ends[number]) - at


def _grouped(parts: Iterator[_Part], most: int) -> Iterator[list[_Part]]:
    """The parts, those together that have up to `most` bytes."""
    group: list[_Part] = []
    size = 0
    for part in parts:
        _, first, last = part
        if group and size + last - first > most:
            yield group
            group, size = [], 0
        group.append(part)
        size += last - first
    if group:
        yield group


def _made(make: _Make, frames: StoredFrames, parts: list[_Part]) -> list[bytes]:
    """What is meant of the pieces. Blocks."""
    made: list[bytes] = []
    for piece, first, last in parts:
        data = make(frames, piece)
        made.append(data if len(data) == last - first else data[first:last])
    return made


def _zstd_of(frames: StoredFrames, piece: Piece) -> bytes:
    """The zstd frames of a piece, checked. Blocks."""
    payloads, _ = _read(frames, piece)
    return piece.rendered(payloads)


def _nar_of(frames: StoredFrames, piece: Piece) -> bytes:
    """The bytes of a piece, checked. Blocks."""
    payloads, nar = _read(frames, piece)
    return nar or _decompressed(piece.rendered(payloads), piece.size)


def _read(frames: StoredFrames, piece: Piece) -> tuple[Sequence[bytes], bytes | None]:
    """What a piece is made from, checked; and its bytes, where they had to be made for that.

    Raises:
        CorruptError: it is damaged, or something else lies there now.
    """
    payloads = frames.read(piece.spans)
    hasher = blake3()
    for payload in payloads:
        hasher.update(payload)
    # Several readers may work on a piece at once. It loses its chunks after it got its digest, so they are looked at before that.
    chunks = piece.chunks
    if piece.digest:
        if piece.digest != hasher.digest():
            raise CorruptError(f"stored content is damaged, or has moved: a piece of a NAR has digest {hasher.hexdigest()}")
        return payloads, None
    try:
        nar = _decompressed(piece.rendered(payloads), piece.size)
        view = memoryview(nar)
        is_sound = all(blake3(view[at : at + frame.length]).digest() == frame.digest for frame, _, _, at in chunks)
    except zstandard.ZstdError:
        is_sound = False
    if not is_sound:
        _check(frames, piece)
        raise CorruptError("stored content is damaged: the chunks of a piece of a NAR do not fit together")
    piece.digest = hasher.digest()
    piece.chunks = []
    return payloads, nar


def _check(frames: StoredFrames, piece: Piece) -> None:
    """Let the backend look at the chunks of a piece, one by one, so that it gets to know which are damaged. Blocks."""
    payloads = frames.read(piece.spans)
    for frame, span, start, _ in piece.chunks:
        with suppress(CorruptError):
            frames.check(frame, payloads[span][start : start + frame.span.size])


def _decompressed(frames: bytes, size: int) -> bytes:
    """What a sequence of zstd frames holds: `size` bytes."""
    return zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True).read(size)

"""NARs from stored frames; also as zstd without compressing: the chunks' frames, and small frames for the tokens between them.

A zstd file is a sequence of frames (RFC 8878, section 3). To plan a NAR takes a walk through the directories and a lookup for each
chunk. So its plan is kept, in memory and in the store. See docs/design/http.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import islice
from typing import Self, TypeAlias

import zstandard
from blake3 import blake3

from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.errors import CorruptError, NotFoundError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import Node
from tvix_store.operations.nars.kept_plans import KeptPlans
from tvix_store.operations.nars.links import FileFacts
from tvix_store.operations.nars.plan import VERSION, Piece, Plan
from tvix_store.operations.nars.planner import plan_nar
from tvix_store.services.frames import StoredFrames
from tvix_store.services.read_ahead import READ_AHEAD
from tvix_store.services.store import Store
from tvix_store.telemetry import meters

_KEPT = 48 << 20
"""Bytes of plans that are kept in memory."""
_PLANNING = 2
"""NARs that are planned at a time."""
_AT_ONCE = 1 << 20
"""Bytes that are made at a time, or a piece that is longer. As zstd, a piece is a third of that: a hop to a thread for each took
a tenth longer."""
_AHEAD = 2
"""How many times that much is made ahead of the reader, with what it gets next."""
_log = logging.getLogger(__name__)

_Part: TypeAlias = tuple[Piece, int, int]
"""A piece, and the part of its output that is meant."""
_Make: TypeAlias = Callable[[Piece, Sequence[memoryview]], bytes]


class PlannedNars:
    """The NARs of a store, made from its frames."""

    def __init__(self, store: Store, frames: StoredFrames) -> None:
        self._store = store
        self._frames = frames
        self._plans = KeptPlans(store)
        self._kept: dict[Node, Plan] = {}
        self._cost = 0
        self._planning = asyncio.Semaphore(_PLANNING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_through: set[Node] = set()
        """NARs in which damage is looked for."""

    @classmethod
    def of(cls, store: Store) -> Self | None:
        """Those of a store that keeps frames."""
        return None if store.frames is None else cls(store, store.frames)

    async def plan(self, node: Node) -> Plan:
        """How the NAR is made.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan_nar`.
        """
        plan = self._kept.get(node)
        meters.CACHE_LOOKUPS.of("plan", "miss" if plan is None else "hit").add()
        if plan is None:
            async with self._planning:
                plan = self._kept.get(node) or await self._plans.get(node) or await self._planned(node)
                self._keep(node, plan)
        return plan

    async def known(self, node: Node) -> Plan | None:
        """As `plan`, but None where it has yet to be made."""
        plan = self._kept.get(node)
        if plan is None and (plan := await self._plans.get(node)) is not None:
            self._keep(node, plan)
        return plan

    def read(self, node: Node, plan: Plan, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes of the NAR from `start` up to `stop`; the next pieces are made while one is sent.

        Raises:
            CorruptError: stored content is damaged, or was stored anew in other bytes; nothing of such a piece is given out, and
                the next reader gets a new plan.
            NotFoundError: content was found damaged, and forgotten.
        """
        return self._read(node, plan, _overlapping(plan.pieces, plan.ends, start, stop), _nar_of)

    def read_zstd(self, node: Node, plan: Plan, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """As `read`, of the zstd file."""
        return self._read(node, plan, _overlapping(plan.pieces, plan.zstd_ends, start, stop), _zstd_of)

    async def etag(self, plan: Plan) -> bytes:
        """Names the bytes of the zstd file: 16 bytes."""
        epoch = await self._store.epoch()
        return blake3(epoch.to_bytes(8, "little") + plan.recipe).digest(length=16)

    async def seal(self) -> bytes:
        """What FileFacts hold for (16 bytes): as long as it stays the same, the zstd file of a NAR has the same bytes.

        Another epoch may have stored a chunk anew, and another zstd compresses tokens otherwise.
        """
        epoch = await self._store.epoch()
        return blake3(b"%d %d %b" % (epoch, VERSION, repr(zstandard.ZSTD_VERSION).encode())).digest(length=16)

    async def file_facts(self, node: Node) -> FileFacts:
        """What is true of the zstd file; it is made, and checked, to its end.

        Raises:
            NotFoundError, InvalidError, CorruptError, ExhaustedError: as `plan` and `read`.
        """
        plan = await self.plan(node)
        was_checked = plan.is_checked
        try:
            return await self._hashed(node, plan)
        except (CorruptError, NotFoundError):
            if not was_checked:
                raise
        # A chunk may have been stored anew in other bytes. That makes another file, which is as good.
        plan = await self._planned(node)
        self._keep(node, plan)
        return await self._hashed(node, plan)

    async def finish(self) -> None:
        """Wait for what is done beside: before the store is closed, where its process goes on."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _hashed(self, node: Node, plan: Plan) -> FileFacts:
        sha256 = hashlib.sha256()
        hashing = BackgroundHash(sha256)
        async with aclosing(self.read_zstd(node, plan, 0, plan.zstd_size)) as pieces:
            async for piece in pieces:
                await hashing.update(piece)
        await hashing.finish()
        return FileFacts(plan.zstd_size, sha256.digest())

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
                    making.append(
                        asyncio.ensure_future(self._frames.read([piece.run for piece, _, _ in group], partial(_made, make, group)))
                    )
                if not making:
                    return
                pieces = await making.popleft()
                if not (was_checked or making) and len(plan.pieces) > 1 and plan.is_checked:
                    was_checked = True
                    self._begin(self._plans.put(node, plan))
                for piece in pieces:
                    yield piece
        except (CorruptError, NotFoundError):
            self._forget(node)
            if was_checked:
                self._begin(self._plans.drop(node, plan))
            if node not in self._looked_through:
                self._looked_through.add(node)
                self._begin(self._look_through(node))
            raise
        finally:
            for made in making:
                made.cancel()

    async def _look_through(self, node: Node) -> None:
        """Read all chunks, so that the store finds what is damaged, and the NAR is offered no more."""
        try:
            plan = await self._planned(node)
            for chunk in (chunk for piece in plan.pieces for chunk in piece.chunks):
                with suppress(CorruptError, NotFoundError):
                    async for _ in self._store.blobs.read(Digest(chunk.digest)):
                        pass
                await asyncio.sleep(0)  # small ones are read on the event loop
        finally:
            self._looked_through.discard(node)

    async def _planned(self, node: Node) -> Plan:
        return await plan_nar(self._frames, self._store.directories.tree(node))

    def _keep(self, node: Node, plan: Plan) -> None:
        self._forget(node)
        self._kept[node] = plan
        self._cost += plan.cost
        while len(self._kept) > 1 and self._cost > _KEPT:
            self._forget(next(iter(self._kept)))

    def _forget(self, node: Node) -> None:
        plan = self._kept.pop(node, None)
        self._cost -= plan.cost if plan is not None else 0

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


def _made(make: _Make, parts: list[_Part], stored: list[list[memoryview]]) -> list[bytes]:
    """What is meant of the pieces. Blocks."""
    made: list[bytes] = []
    for (piece, first, last), chunks in zip(parts, stored, strict=True):
        data = make(piece, chunks)
        made.append(data if len(data) == last - first else data[first:last])
    return made


def _zstd_of(piece: Piece, stored: Sequence[memoryview]) -> bytes:
    """The zstd frames of a piece, checked. Blocks."""
    zstd, _ = _checked(piece, stored)
    return zstd


def _nar_of(piece: Piece, stored: Sequence[memoryview]) -> bytes:
    """The bytes of a piece, checked. Blocks."""
    zstd, nar = _checked(piece, stored)
    return nar or _decompressed(zstd, piece.size)


def _checked(piece: Piece, stored: Sequence[memoryview]) -> tuple[bytes, bytes | None]:
    """The zstd frames of a piece; and what they hold, where that had to be made.

    Raises:
        CorruptError: stored content is damaged, or is not the content that was checked.
    """
    # Several readers may work on a piece at once. A piece loses its extents after it got its digest: they are read first.
    chunks = list(piece.chunks)
    zstd = piece.rendered(stored)
    digest = blake3(zstd).digest()
    if piece.digest:
        if piece.digest != digest:
            raise CorruptError(f"stored content is damaged, or was stored anew: a piece of a NAR has digest {digest.hex()}")
        return zstd, None
    try:
        nar = _decompressed(zstd, piece.size)
    except zstandard.ZstdError:
        nar = b""
    view = memoryview(nar)
    if len(nar) != piece.size or any(blake3(view[begin:end]).digest() != chunk for chunk, begin, end in chunks):
        raise CorruptError("stored content is damaged: the chunks of a piece of a NAR do not fit together")
    piece.digest = digest
    piece.extents = b""
    return zstd, nar


def _decompressed(frames: bytes, size: int) -> bytes:
    """What a sequence of zstd frames holds: `size` bytes."""
    return zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True).read(size)

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
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from itertools import islice

import zstandard
from blake3 import blake3

from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, StoreError
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode, encode_node
from tvix_store.nar import tokens
from tvix_store.operations.closure import Closure
from tvix_store.operations.fetch_tree import walk_tree
from tvix_store.operations.nar_links import FileFacts
from tvix_store.operations.zstd_plan import ITEM, Piece, Plan
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import Frame, Span, StoredFrames

MAX_ENTRIES = 200_000
"""Entries of the largest tree that is planned, and
MAX_NAR: bytes of its NAR. Bound the memory of planning to some 100 MB; what is larger is offered uncompressed."""
MAX_NAR = 64 << 30
_PIECE = 1 << 20
_GAP = 8 << 10
"""Bytes between two frames in a file that are read with them: less than a second read costs."""
_MAX_SPAN = 4 << 20
_BLOCK = 128 << 10
"""Bytes of the largest block of a zstd frame (RFC 8878, section 3.1.1.2.4)."""
_FILES_AT_ONCE = 1024
_KEPT = 48 << 20
"""Bytes of plans that are kept in memory."""
_HASHED_HERE = 32 << 10
"""Bytes that are hashed on the event loop: it takes 25 µs, less than a thread's answer."""
_PLANNING = 2
_AHEAD = 3
"""Pieces that are made at a time."""
_log = logging.getLogger(__name__)

Buffer = bytes | memoryview


def can_be_planned(node: Node, nar_size: int) -> bool:
    """Whether a node is small enough."""
    # A directory's size counts its descendants, by one of the rules twice.
    return nar_size <= MAX_NAR and (not isinstance(node, DirectoryNode) or node.size <= MAX_ENTRIES)


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
            NotFoundError, InvalidError, CorruptError: as `fetch_tree`.
            ExhaustedError: the tree is too large (see `can_be_planned`).
        """
        plan = self._kept.get(node)
        if plan is None:
            async with self._planning:
                plan = self._kept.get(node) or await self._remembered(node) or await _planned(self._frames, self._directories, node)
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
        async for piece in self.read(node, plan, 0, plan.size):
            if len(piece) <= _HASHED_HERE:
                sha256.update(piece)
            else:
                await asyncio.to_thread(sha256.update, piece)
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
        _check(frames, chunks, payloads)
        piece.digest = digest
        piece.frames = []
    elif digest != piece.digest:
        raise CorruptError(f"stored content is damaged, or has moved: a piece of a NAR has digest {digest.hex()}")
    return data


def _check(frames: StoredFrames, chunks: Sequence[tuple[Frame, int, int]], payloads: Sequence[bytes]) -> None:
    """Hold every chunk against its digest."""
    decompressor = zstandard.ZstdDecompressor()
    for frame, span, start in chunks:
        data: Buffer = memoryview(payloads[span])[start : start + frame.span.size]
        if frame.span.size != frame.length:
            try:
                # The frame's own word for its size is checked first: the library allocates by it.
                data = decompressor.decompress(data) if zstandard.frame_content_size(data) == frame.length else b""
            except zstandard.ZstdError:
                data = b""
        if len(data) != frame.length or blake3(data).digest() != frame.digest:
            frames.damaged(frame)
            raise CorruptError(f"stored content of b3:{frame.digest.hex()} is damaged")


async def _planned(frames: StoredFrames, directories: DirectoryService, node: Node) -> Plan:
    planner = _Planner()
    parts = _parts(Closure(directories, node))
    batch: list[tuple[bytes, FileNode | None]] = []
    entries = 0
    async for part in parts:
        batch.append(part)
        if len(batch) == _FILES_AT_ONCE:
            entries += len(batch)
            if entries > 2 * MAX_ENTRIES:
                raise ExhaustedError(f"a tree of more than {MAX_ENTRIES} entries is not offered as zstd")
            await _add(planner, frames, batch)
            batch = []
    await _add(planner, frames, batch)
    return planner.finish()


async def _add(planner: _Planner, frames: StoredFrames, parts: list[tuple[bytes, FileNode | None]]) -> None:
    found = iter(await frames.find([file.digest for _, file in parts if file is not None and file.size]))
    for literal, file in parts:
        planner.add_tokens(literal)
        if file is None or not file.size:
            continue
        chunks = next(found)
        if sum(chunk.length for chunk in chunks) != file.size:
            raise InvalidError(f"blob {file.digest} is not {file.size} bytes long, as the node of a file states")
        for chunk in chunks:
            planner.add_frame(chunk)


async def _parts(closure: Closure) -> AsyncIterator[tuple[bytes, FileNode | None]]:
    """What the NAR consists of, in order: tokens, and the file whose contents follow them."""
    pending = bytearray(tokens.MAGIC)
    depth = 0
    async for name, child in walk_tree(closure):
        if depth and child is not None:
            pending += tokens.entry_start(name)
        if type(child) is DirectoryNode:
            pending += tokens.DIRECTORY_START
            depth += 1
            continue
        if type(child) is FileNode:
            pending += tokens.file_start(child.size, child.executable)
            yield bytes(pending), child
            pending = bytearray(tokens.file_end(child.size))
        elif type(child) is SymlinkNode:
            pending += tokens.symlink(child.target)
        else:
            pending += tokens.DIRECTORY_END
            depth -= 1
        if depth:
            pending += tokens.ENTRY_END
        if len(pending) >= _BLOCK:
            yield bytes(pending), None
            pending.clear()
    yield bytes(pending), None


class _Planner:
    """Puts pieces together."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._compressor = zstandard.ZstdCompressor()
        self._begin()

    def _begin(self) -> None:
        self._size = 0
        self._items: list[bytes] = []
        self._spans: list[Span] = []
        self._literals: list[bytes] = []
        self._literal = 0
        self._frames: list[tuple[Frame, int, int]] = []

    def add_tokens(self, data: bytes) -> None:
        if data:
            self._add_literal(self._compressor.compress(data))

    def add_frame(self, frame: Frame) -> None:
        span, start = self._span(frame.span)
        self._frames.append((frame, span, start))
        if frame.span.size < frame.length:
            self._add_item(span, start, frame.span.size)
        else:
            self._add_raw(span, start, frame.length)
        if self._size >= _PIECE:
            self._end_piece()

    def finish(self) -> Plan:
        self._end_piece()
        return Plan(self._pieces)

    def _add_raw(self, span: int, start: int, size: int) -> None:
        """A chunk that is not compressed: a frame of raw blocks (RFC 8878, section 3.1.1)."""
        self._add_literal(b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little"))  # magic; single segment, size in 4 bytes
        for at in range(0, size, _BLOCK):
            block = min(_BLOCK, size - at)
            is_last = at + block == size
            self._add_literal((block << 3 | is_last).to_bytes(3, "little"))
            self._add_item(span, start + at, block)

    def _add_literal(self, data: bytes) -> None:
        self._literals.append(data)
        self._literal += len(data)
        self._size += len(data)

    def _add_item(self, span: int, start: int, size: int) -> None:
        self._items.append(ITEM.pack(self._literal, span, start, size))
        self._literal = 0
        self._size += size

    def _span(self, wanted: Span) -> tuple[int, int]:
        """The number of the span that holds `wanted`, and where in it that begins."""
        if self._spans:
            last = self._spans[-1]
            start = wanted.offset - last.offset
            gap = start - last.size
            if wanted.file == last.file and 0 <= gap <= _GAP and start + wanted.size <= _MAX_SPAN:
                self._spans[-1] = Span(last.file, last.offset, start + wanted.size)
                return len(self._spans) - 1, start
        self._spans.append(wanted)
        return len(self._spans) - 1, 0

    def _end_piece(self) -> None:
        if self._literal:
            self._add_item(0, 0, 0)
        if self._size:
            self._pieces.append(
                Piece(self._size, b"".join(self._items), self._spans, b"".join(self._literals), frames=self._frames)
            )
        self._begin()

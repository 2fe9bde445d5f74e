"""Substituter: an upstream cache, the terms on which it is used, and what is remembered of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from blake3 import blake3

from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.concurrency.window import Window
from tvix_store.errors import InvalidError
from tvix_store.layers.recent_offers import RecentOffers
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import OUTPUT_HASH_SIZE
from tvix_store.operations.paths.fetch_parts import PartsFetcher
from tvix_store.operations.paths.substitute import check_narinfo, fetch_path
from tvix_store.services.store import Store
from tvix_store.services.upstream import (
    DEFAULT_PRIORITY,
    Upstream,
    UpstreamDownError,
    UpstreamFailsError,
    UpstreamLacksError,
    UpstreamLiesError,
    UpstreamStalledError,
)
from tvix_store.telemetry import meters

T = TypeVar("T")

_log = logging.getLogger(__name__)
_LOG_PAUSE = 10.0
"""Seconds between two lines about an upstream's failures of one kind."""
_MOST_REMEMBERED = 100_000
"""Keys of 20 bytes; some 15 MB."""
_WHOLE = 1 << 20
"""Bytes of a stream that is read to its end before it is passed on: its size is known then, and the upstream is free."""
_AT_ONCE = 4
"""NARs that are fetched at the same time; each takes some 20 MB."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How an upstream is used.

    public_keys: one of them must have signed a path, unless `unsigned` paths are taken
    priority: the lowest is asked first; None means as the upstream says
    negative_ttl: Seconds for which it is remembered that it lacks, or lied about, a path.
    pause: Seconds for which it is left alone after it did not answer.
    """

    public_keys: tuple[PublicKey, ...] = ()
    unsigned: bool = False
    priority: int | None = None
    negative_ttl: float = 30.0
    pause: float = 5.0


class Substituter:
    """One upstream. Its failures end here, as lines in the log: what it does not give, it lacks."""

    def __init__(self, upstream: Upstream, terms: Terms) -> None:
        self._upstream = upstream
        self._parts: tuple[Store, PartsFetcher] | None = None
        self._terms = terms
        self._introduced = False
        self._left_alone_until = 0.0
        self._absent: dict[bytes, float] = {}  # key → when it is forgotten; in the order of being remembered
        self._offers = RecentOffers()
        self._questions: set[asyncio.Task[NarInfo | None]] = set()
        self._asking: SingleFlight[tuple[bytes, str], NarInfo | None] = SingleFlight(self._begin_asking)
        self._logged: dict[str, tuple[float, int]] = {}  # kind → when the last line was, and how many were left out since
        self.name = upstream.name
        self.priority = DEFAULT_PRIORITY if terms.priority is None else terms.priority
        self.room = asyncio.Semaphore(_AT_ONCE)
        """To be taken for a fetch. Each upstream has its own: one that stalls keeps nobody waiting for another."""

    async def introduce(self) -> None:
        """Learn the priority, if the upstream answers; until then it is left alone."""
        if self._answers():
            self._left_alone_until = time.monotonic() + self._terms.pause
            try:
                await self._introduce()
            except UpstreamDownError as error:
                self._leave_alone(error)
            except UpstreamLiesError as error:
                self._refuse(error)

    async def narinfo(self, output_hash: bytes, store_dir: str) -> NarInfo | None:
        """What the upstream says of a path, checked; None where it lacks the path, or nothing good can be learned from it now.

        Calls at the same time share one request. A narinfo is remembered for a short while.
        """
        offer = self._offers.get(output_hash)
        if offer is not None and time.monotonic() >= self._left_alone_until and not self._is_absent(output_hash):
            return offer
        return await self._asking.result((output_hash, store_dir))

    def _begin_asking(self, key: tuple[bytes, str]) -> asyncio.Task[NarInfo | None]:
        task = asyncio.create_task(self._asked(*key))
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)
        return task

    async def _asked(self, output_hash: bytes, store_dir: str) -> NarInfo | None:
        async def ask() -> NarInfo | None:
            narinfo = await self._upstream.narinfo(output_hash)
            if narinfo is not None:
                terms = self._terms
                check_narinfo(narinfo, output_hash, terms.public_keys, store_dir=store_dir, unsigned=terms.unsigned)
            return narinfo

        narinfo = await self._answer(output_hash, ask)
        if narinfo is not None:
            self._offers.put(output_hash, narinfo)
        return narinfo

    async def document(self, path: str, most: int, check: Callable[[bytes, Terms], bytes]) -> bytes | None:
        """What `check` makes of the file at `path`; None as for `narinfo`.

        It is called in a thread, and raises InvalidError for what it refuses.
        """

        async def ask() -> bytes | None:
            text = await self._upstream.document(path, most)
            try:
                return None if text is None else await asyncio.to_thread(check, text, self._terms)
            except InvalidError as error:
                raise UpstreamLiesError(str(error)) from None

        return await self._file(path, ask)

    async def stream(self, path: str, most: int) -> bytes | AsyncGenerator[bytes, None] | None:
        """The file at `path`, unchecked; None as for `narinfo`.

        A large one comes in pieces. They have begun: read them on, or close them.
        """

        async def ask() -> bytes | AsyncGenerator[bytes, None] | None:
            pieces = self._upstream.stream(path, most)
            beginning = bytearray()
            try:
                async for piece in pieces:
                    beginning += piece
                    if len(beginning) > _WHOLE:
                        stream = _joined(bytes(beginning), pieces)
                        await anext(stream)
                        return stream
            except UpstreamLacksError:
                return None
            return bytes(beginning)

        return await self._file(path, ask)

    async def fetch(self, store: Store, narinfo: NarInfo, window: Window) -> PathInfo | None:
        """Bring the path into the store, but for its path info; None where the upstream does not let us.

        A NAR is shown in `window` on its way.
        """
        output_hash = narinfo.store_path.output_hash
        try:
            path_info = await self._parts_for(store).fetch(narinfo)
            if path_info is not None:
                meters.UPSTREAM_REQUESTS.of(self._upstream.name, "parts", "found").add()
                return path_info
            try:
                path_info = await fetch_path(store, self._upstream, narinfo, window)
            except UpstreamStalledError:
                raise
            except UpstreamDownError:
                path_info = await fetch_path(store, self._upstream, narinfo, window)
        except UpstreamLacksError as error:
            self._remember(output_hash, self._terms.negative_ttl)
            self._complain("lacks a NAR", error)
            return None
        except UpstreamDownError as error:
            # That one NAR does not come tells nothing about others.
            self._remember(output_hash, self._terms.pause)
            self._complain("fails", error)
            return None
        except UpstreamLiesError as error:
            self._refuse(error, output_hash)
            return None
        return path_info

    def forget(self, output_hash: bytes) -> None:
        """Ask for the path again, whatever is remembered."""
        self._absent.pop(output_hash, None)
        self._offers.forget(output_hash)

    async def close(self) -> None:
        for task in self._questions:
            task.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)
        if self._parts is not None:
            await self._parts[1].close()
        await self._upstream.close()

    def _parts_for(self, store: Store) -> PartsFetcher:
        if self._parts is None or self._parts[0] is not store:
            self._parts = store, PartsFetcher(self._upstream, store)
        return self._parts[1]

    async def _file(self, path: str, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """As `_answer`. That one file is answered with trouble tells nothing about paths: some caches know no such files."""

        async def ask_for_file() -> T | None:
            try:
                return await ask()
            except UpstreamFailsError as error:
                self._complain("fails", error)
                return None

        return await self._answer(blake3(path.encode()).digest(OUTPUT_HASH_SIZE), ask_for_file)

    async def _answer(self, key: bytes, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """The answer, where the upstream may be asked and gives a good one; what `key` stands for is remembered as absent else."""
        if self._is_absent(key) or not self._answers():
            return None
        try:
            if not self._introduced:
                await self._introduce()
            answer = await ask()
        except UpstreamDownError as error:
            self._leave_alone(error)
            return None
        except UpstreamLiesError as error:
            self._refuse(error, key)
            return None
        self._left_alone_until = 0.0
        if answer is None:
            self._remember(key, self._terms.negative_ttl)
        return answer

    async def _introduce(self) -> None:
        stated = await self._upstream.priority()
        if self._terms.priority is None:
            self.priority = stated
        self._introduced = True
        self._left_alone_until = 0.0

    def _answers(self) -> bool:
        """Whether to ask. After a pause one asks, and the others see how it fares."""
        now = time.monotonic()
        if now < self._left_alone_until:
            return False
        if self._left_alone_until:
            self._left_alone_until = now + self._terms.pause
        return True

    def _leave_alone(self, error: UpstreamDownError) -> None:
        self._left_alone_until = time.monotonic() + self._terms.pause
        self._complain("is down", error)

    def _refuse(self, error: UpstreamLiesError, key: bytes | None = None) -> None:
        if key is None or not self._introduced:
            self._left_alone_until = time.monotonic() + self._terms.pause
        else:
            self._left_alone_until = 0.0  # it answers, after all
            self._remember(key, self._terms.negative_ttl)
        self._complain("is refused", error)

    def _is_absent(self, key: bytes) -> bool:
        until = self._absent.get(key)
        if until is not None and until <= time.monotonic():
            del self._absent[key]
            return False
        return until is not None

    def _remember(self, key: bytes, seconds: float) -> None:
        self._offers.forget(key)
        self._absent.pop(key, None)
        if seconds > 0:
            self._absent[key] = time.monotonic() + seconds
            while len(self._absent) > _MOST_REMEMBERED:
                del self._absent[next(iter(self._absent))]

    def _complain(self, kind: str, error: Exception) -> None:
        now = time.monotonic()
        last, left_out = self._logged.get(kind, (-_LOG_PAUSE, 0))
        if now - last < _LOG_PAUSE:
            self._logged[kind] = (last, left_out + 1)
            return
        self._logged[kind] = (now, 0)
        more = f" (and {left_out} more times)" if left_out else ""
        _log.error("substituter %s %s: %s%s", self._upstream.name, kind, error, more)


async def _joined(beginning: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Both, behind a piece without bytes."""
    async with aclosing(pieces):
        yield b""
        yield beginning
        async for piece in pieces:
            yield piece

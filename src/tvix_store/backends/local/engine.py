"""The engine: one store directory, opened once a process however often it is asked for, and shared by the services."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from tvix_store.backends.local import settings
from tvix_store.backends.local.chunk_lists import Segment, parse_segment
from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.compression import unpacked
from tvix_store.backends.local.damage import Forget, opened
from tvix_store.backends.local.disk import disk_errors, make_directory
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.lost_packs import LostPacks
from tvix_store.backends.local.own_index import OwnIndex
from tvix_store.backends.local.pack_pool import PackPool
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.requests import Look
from tvix_store.backends.local.roots_lock import RootsLock
from tvix_store.backends.local.snapshot import NoPack, Snapshot, why_read_only
from tvix_store.errors import CorruptError, StoreError, UnavailableError
from tvix_store.services.held_graphs import HeldGraphs

T = TypeVar("T")

READ_THREADS = 4
"""Threads that read, check and decompress, where nothing else is asked for; more than cores, since some wait for the disk."""
_log = logging.getLogger(__name__)
_open_engines: dict[tuple[Path, bool], Engine] = {}
"""By their directories, and whether they only read."""
_open_lock = threading.Lock()


class Engine:
    """The parts of an open store. Get one by `acquire`, give it back by `release`."""

    def __init__(
        self, directory: Path, wanted: dict[str, int | str], threads: int, durability: Durability, refusal: str | None = None
    ) -> None:
        self.directory = directory
        self.refusal = refusal
        """Why the store is only read; None where it is written."""
        self._users = 0
        packs = directory / "packs"
        self._opened: OwnIndex | Snapshot
        if refusal is None:
            self.settings = settings.load_or_create(directory, wanted, durability)
            self.reader = PackReader(packs, durability)
            with disk_errors(directory):
                make_directory(packs)
                self._opened = OwnIndex(directory, self.reader, durability, scrubs=threads > 0)
        else:
            self.settings = settings.load(directory, wanted)
            self._opened = Snapshot(directory)
            self.reader = PackReader(packs, self._opened.durability)
        self._durability = self._opened.durability
        self.index = self._opened.index
        catch_up = self._opened.catch_up if isinstance(self._opened, Snapshot) else None
        self.lost_packs = LostPacks(self.index, self.reader, directory, self._durability, catch_up)
        try:
            if refusal is None:
                self.lost_packs.take_back()
        except StoreError as error:  # on a full disk, for example
            _log.error("packs that are there again are not named: %s", error)
        self.spare_packs = PackPool(self._new_writer)
        self.committer = Committer(
            self.index,
            self._new_writer(),
            self.reader,
            self.lost_packs,
            level=self.settings.compression_level,
            threads=os.cpu_count() or 1,
            left=self.spare_packs.close,
        )
        try:
            losing = self.committer.losing()
            if losing is not None:
                losing.result()
        except StoreError as error:  # it is tried again before anybody relies on what is lost
            _log.error("what lies in lost packs is not forgotten: %s", error)
        self.roots_lock = RootsLock(directory)
        self.graphs = HeldGraphs()
        self._of_thread = threading.local()
        self._threads = ThreadPoolExecutor(threads, "tvix-store-read", self._begin_thread) if threads else None

    async def in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        """Run what blocks, or takes more than some 50 µs, off the event loop; unless the store was opened without threads."""
        if self._threads is None:
            return call(*arguments)
        return await asyncio.wrap_future(self.start_in_thread(call, *arguments))

    def start_in_thread(self, call: Callable[..., T], *arguments: object) -> Future[T]:
        """As `in_thread`, at once."""
        if self._threads is None:
            return _done(call, *arguments)
        try:
            return self._threads.submit(call, *arguments)
        except RuntimeError:
            raise UnavailableError("the store is closed") from None

    def off_the_loop(self, call: Callable[..., T], *arguments: object) -> Future[T]:
        """As `start_in_thread`; but in a thread of ours already, it is done there."""
        return _done(call, *arguments) if hasattr(self._of_thread, "is_ours") else self.start_in_thread(call, *arguments)

    def payload(self, digest: bytes, place: Place, stored: bytes | None = None) -> bytes:
        """The chunk or directory that was found at `place`, decompressed and checked. `stored` saves reading it.

        It may lie elsewhere by now, since it was put again, or its pack was rewritten. Then it is read there.

        Raises:
            CorruptError: the bytes do not match `digest`, or the pack is missing or too short. The chunk is forgotten then, so that
                it can be put again.
        """
        try:
            data = opened(digest, place, self.reader.read(place) if stored is None else stored)
        except CorruptError as error:
            return self._payload_by_now(digest, place, error)
        if data is None:
            return self._payload_by_now(digest, place, _damaged(digest, place))
        return data

    def _payload_by_now(self, digest: bytes, place: Place, error: CorruptError) -> bytes:
        """What could not be read at `place`, from where it lies now, if that is elsewhere."""
        failed = {place}
        while now := [each for each in (self.index.chunk(digest), self.index.directory(digest)) if each and each not in failed]:
            failed.add(now[0])
            with suppress(CorruptError):
                data = opened(digest, now[0], self.reader.read(now[0]))
                if data is not None:
                    return data
        for each in failed:
            self.forget_damaged(digest, each)
        raise error

    def payloads(self, wanted: Sequence[tuple[bytes, Place]]) -> dict[bytes, bytes]:
        """Many chunks, by digest, as `payload` gives each; read in few calls, and decompressed by several threads at once."""
        try:
            stored = self.reader.read_many([place for _, place in wanted])
        except CorruptError:  # which of them is it?
            return {digest: self.payload(digest, place) for digest, place in wanted}
        found: dict[bytes, bytes] = {}
        frames: list[tuple[bytes, Place, memoryview]] = []
        for (digest, place), data in zip(wanted, stored, strict=True):
            if place.stored == place.length:
                found[digest] = self.payload(digest, place, bytes(data))
            else:
                frames.append((digest, place, data))
        contents = unpacked([(data, place.length) for _, place, data in frames], shared=self._threads is not None)
        if contents is None:
            return found | {digest: self.payload(digest, place, bytes(data)) for digest, place, data in frames}
        for (digest, place, _), content in zip(frames, contents, strict=True):
            found[digest] = bytes(content) if blake3(content).digest() == digest else self.payload(digest, place)
        return found

    def segment(self, blob: bytes, at: int) -> Segment | None:
        """The part of a blob's chunk list that covers the byte `at`; None where there is none.

        Raises:
            CorruptError: it is damaged; then the list is forgotten, so that the blob can be put again.
        """
        failed: Place | None = None
        while (found := self.index.chunk_list_segment(blob, at)) is not None:
            place = found[1]
            try:
                return parse_segment(self.reader.read_checked(place))
            except CorruptError:  # unless it lies elsewhere by now
                if place == failed:
                    self.forget_damaged(blob, place)
                    raise
                failed = place
        return None

    def forget_damaged(self, digest: bytes, place: Place) -> None:
        """Let a chunk, directory or chunk list be forgotten, if it is damaged; nobody waits for it."""
        self.forget_all_damaged([(digest, place)])

    def forget_all_damaged(self, suspects: Sequence[tuple[bytes, Place]]) -> None:
        """As `forget_damaged`, many together."""
        self.lost_packs.suspect()
        with suppress(UnavailableError):  # a store that is just closed
            self.committer.submit(Forget(suspects))

    def forget_torn(self, blob: bytes) -> None:
        """Let the chunk list of a blob be forgotten, if it names a chunk that is missing; nobody waits for it."""
        with suppress(UnavailableError):
            self.committer.submit(Forget(torn=[blob]))

    def record_store_dir(self, store_dir: str) -> None:
        """Make sure that the store knows its store directory, before it takes a path.

        Raises:
            InvalidError: it is another one.
        """
        self.settings = settings.record_store_dir(self.directory, store_dir, self._durability)

    def checkpoint(self) -> None:
        """Make a checkpoint of all that was committed."""
        if isinstance(self._opened, OwnIndex):
            self._opened.checkpointer.make()

    def sync_names(self, directory: Path) -> None:
        """Bring the names in a directory to the disk itself."""
        self._durability.sync_names(directory)

    async def without_losses(self) -> None:
        """Return when the index names nothing that lies in a lost pack.

        Raises:
            StoreError: that cannot be written.
        """
        losing = self.committer.losing()
        if losing is not None:
            await asyncio.wrap_future(losing)

    async def take_back(self) -> None:
        """Take back what was found among the condemned before, as far as that can be; also what a commit is at.

        It is for who says that something is there. If `index.finds` rose during his look, he calls this, and looks once more, at
        what is live alone: the rest may be deleted. `index.wanted_back` would not tell him. It is empty while a commit is at it,
        and that commit may wait for a process that deletes the same.
        """
        await asyncio.wrap_future(self.committer.submit(Look()))

    async def taken_back(self) -> None:
        """As `take_back`, for who tells nobody that it is there."""
        if self.index.wanted_back:
            await self.take_back()

    def check(self) -> None:
        """Raise UnavailableError where the store cannot serve."""
        if self.committer.failure is not None:
            raise UnavailableError(f"the store must be opened again: {self.committer.failure}")
        if not (self.directory / settings.FILE).exists():
            raise UnavailableError(f"the store in {self.directory} is gone")
        if self._opened.damage.is_set():
            raise UnavailableError(f"the index in {self.directory} is damaged; it is made anew when the store is opened again")
        self.lost_packs.check()
        self.index.path_info(b"\0" * 20)

    def _begin_thread(self) -> None:
        self._of_thread.is_ours = True

    def _new_writer(self) -> PackWriter:
        if self.refusal is not None:
            return NoPack(self.directory, self.refusal)
        return PackWriter(
            self.directory / "packs",
            self._committed_size,
            self.lost_packs.highest_number,
            self.settings.pack_size,
            self._durability,
        )

    def _committed_size(self, pack: int) -> int:
        """For who would write to the pack."""
        if self.lost_packs.may_come_back(pack):
            return 0
        with self.index.reading() as txn:
            return self.index.pack_sizes(txn, pack)[0]

    def _close(self) -> None:
        self.committer.close()
        if self._threads is not None:
            self._threads.shutdown()
        self.spare_packs.close()
        self._opened.close()
        self.reader.close()

    @staticmethod
    def acquire(
        directory: Path,
        wanted: dict[str, int | str],
        threads: int = READ_THREADS,
        durability: Callable[[Path], Durability] = Durability,
        *,
        read_only: bool = False,
    ) -> Engine:
        """The engine of a store directory, which is made where it does not exist. Who opens it first says how many threads read.

        A store that this process cannot write is only read, as one that is opened `read_only`.
        """
        with disk_errors(directory):
            if not read_only:
                directory.mkdir(parents=True, exist_ok=True)
            where = directory.resolve()
        why = "it was opened with read-only=1" if read_only else why_read_only(where)
        refusal = None if why is None else f"the store in {where} can only be read: {why}"
        key = (where, why is not None)
        with _open_lock:
            engine = _open_engines.get(key)
            if engine is None:
                engine = _open_engines[key] = Engine(where, wanted, threads, durability(where), refusal)
            elif why is not None:
                settings.load(where, wanted)
            elif wanted:
                settings.load_or_create(where, wanted, engine._durability)
            engine._users += 1
            return engine

    def release(self) -> None:
        """Give the engine back; the last user closes it."""
        with _open_lock:
            self._users -= 1
            if self._users == 0:
                del _open_engines[self.directory, self.refusal is not None]
                self._close()


def _damaged(digest: bytes, place: Place) -> CorruptError:
    return CorruptError(f"stored content of b3:{digest.hex()} is damaged (pack {place.pack:08x}, offset {place.offset})")


def _done(call: Callable[..., T], *arguments: object) -> Future[T]:
    """The outcome of a call."""
    outcome: Future[T] = Future()
    try:
        outcome.set_result(call(*arguments))
    except BaseException as error:  # noqa: BLE001 - as a thread does; whoever asks gets it
        outcome.set_exception(error)
    return outcome

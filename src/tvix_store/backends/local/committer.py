"""The committer: one thread a process that appends records to the pack and commits them to the index, many requests at a time.

Requests are taken many at a time: compressed in one native call, written with one system call, named by one index transaction,
and, where one of them is a path info, synced once.

Order of a commit, and what a crash leaves behind:
1. Known contents are dropped, new chunks compressed.
   Nothing.
2. Records are appended to the pack. Pieces of a large blob may stay there until the whole blob is put. For a path
   info, or records, all packs with unsynced bytes are then synced.
   Bytes that no index names; cut off by the pack's next owner.
3. One index transaction names the records. Those of path infos, and of the record service, are appended, and synced once,
   inside it, so that merges happen one by one.
   All of the group, or nothing. After a power cut the index is made anew from the packs, which hold all that was synced.
4. The callers are told.

What was found damaged is forgotten before anything else of its group: a put behind it stores it anew.

Records that nobody waits for to be durable are synced as soon as there is nothing else to do, and within half a second in any case.
While there is nothing to do for longer, the committer syncs the index and takes the mark of `unsynced.py` away.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from tvix_store.backends.local.contents import Content, Name, Written, name_of, new_records
from tvix_store.backends.local.damage import forget
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import SEQUENCE, STORED_BYTES, UNIQUE_BYTES, Index
from tvix_store.backends.local.lost_packs import LostPacks
from tvix_store.backends.local.packs import PackReader, PackWriter, Place
from tvix_store.backends.local.records import DURABLE, Kind, NewRecord, keyed_records, path_info_record
from tvix_store.backends.local.unsynced import UnsyncedMark
from tvix_store.errors import CorruptError, StoreError, UnavailableError
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.trust import NOBODY, Trust

_log = logging.getLogger(__name__)
_GROUP_BYTES = 16 << 20
"""Payload bytes that are compressed and written together at most; bounds memory."""
_UNNAMED_BYTES = 64 << 20
"""Payload bytes that may be written and wait for a commit to name them."""
_REST = 2.0
"""How many times as long as the last commit took, the next one may wait for more to do. A commit rewrites most leaves of a small
index, since digests are random keys: without a rest, 200 commits in the import of a tree cost as much as compressing it."""
_SETTLE_AFTER = 1.0
"""Seconds without work after which the index is synced."""
_SYNC_WITHIN = 0.5
"""Seconds within which records that are not durable are synced."""
_PARALLEL_FROM = 256 << 10
"""Payload bytes from which compression uses more than one thread: starting them costs about 100 µs."""


@dataclass(slots=True)
class _Request:
    contents: Sequence[Content] = ()
    lazy: bool = False
    durable: bool = False
    path_info: PathInfo | None = None
    trust: Trust = NOBODY
    nar_facts: tuple[bytes, NarFacts] | None = None
    records: Mapping[bytes, bytes | None] = field(default_factory=dict)
    damaged: tuple[bytes, Place] | None = None
    written: Sequence[Written] = ()
    sizes: Mapping[int, int] = field(default_factory=dict)
    pack: tuple[int, int] | None = None
    done: Future[PathInfo | None] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(len(content.payload) for content in self.contents)


class _SyncFailedError(Exception):
    """What was written may be lost, though it reads well from memory: nothing more may be built on it."""


class Committer:
    """Puts things into a local store. Its methods may be called from any thread; the futures are set when the put has happened."""

    def __init__(
        self,
        index: Index,
        writer: PackWriter,
        reader: PackReader,
        mark: UnsyncedMark,
        lost_packs: LostPacks,
        *,
        level: int,
        threads: int,
    ) -> None:
        self._index = index
        self._writer = writer
        self._reader = reader
        self._mark = mark
        self._lost_packs = lost_packs
        self._losing: Future[PathInfo | None] | None = None
        self._packs_changed = 0
        self._level = level
        self._threads = threads
        self._unnamed: dict[Name, Written] = {}
        """Written, but not yet named in the index."""
        self._unnamed_bytes = 0
        self._waiting: list[_Request] = []
        """Written, but their callers not yet told: the next commit does that."""
        self._rest_until = 0.0
        self._sync_at = inf
        """When records that were put without being durable are synced."""
        self._settled = not mark.is_set()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self.failure: Exception | None = None
        """Why nothing can be put any more, until the store is opened again."""
        self._writing: list[_Request] = []
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tvix-store-committer", daemon=True)
        self._thread.start()

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        """As `Sink.unknown`."""
        return list(contents) if self.losing() is not None else self._index.unknown(contents)

    def holds(self, size: int) -> bool:
        """As `Sink.holds`."""
        return False

    def losing(self) -> Future[PathInfo | None] | None:
        """A future that is done when the content of lost packs is forgotten; None where the index names no such content."""
        if self._losing is not None and not self._losing.done():
            return self._losing
        self._losing = self._submit(_Request()) if self._lost_packs.sees_loss() else None
        return self._losing

    def put_contents(self, contents: Sequence[Content]) -> Future[PathInfo | None]:
        """Store contents. They survive a killed process from then on, and a power cut from the next durable put on."""
        return self._submit(_Request(contents=contents))

    def put_tree(
        self, contents: Sequence[Content], nar_facts: tuple[bytes, NarFacts] | None, records: Mapping[bytes, bytes]
    ) -> Future[PathInfo | None]:
        """Store contents, and in the same commit what is true of their NAR, and records that are not durable."""
        return self._submit(_Request(contents=contents, nar_facts=nar_facts, records=records))

    def write_contents(self, contents: Sequence[Content]) -> Future[PathInfo | None]:
        """As `Sink.write_contents`."""
        return self._submit(_Request(contents=contents, lazy=True))

    def name_pack(self, number: int, size: int) -> Future[PathInfo | None]:
        """Count a pack that another writer has begun, of `size` bytes, as one of this store."""
        return self._submit(_Request(pack=(number, size)))

    def name_contents(
        self,
        written: Sequence[Written],
        sizes: Mapping[int, int],
        nar_facts: tuple[bytes, NarFacts] | None,
        records: Mapping[bytes, bytes],
    ) -> Future[PathInfo | None]:
        """Make contents visible that another writer has written to its packs; of those there already, the place stays as it is.

        `sizes` tells how many bytes of each of these packs count from then on, if any of its contents is new. In the same commit,
        what is true of a NAR, and records that are not durable.
        """
        return self._submit(_Request(written=written, sizes=sizes, nar_facts=nar_facts, records=records))

    def put_path_info(self, path_info: PathInfo, trust: Trust = NOBODY) -> Future[PathInfo | None]:
        """Store a path info durably, with everything put before; the result is what is stored now.

        Raises (in the future):
            ConflictError, InvalidError: as `PathInfo.merged`.
        """
        return self._submit(_Request(path_info=path_info, trust=trust, durable=True))

    def put_records(self, records: Mapping[bytes, bytes | None], *, durable: bool) -> Future[PathInfo | None]:
        """Store records of the record service, or delete them; if `durable`, with everything put before, else soon."""
        return self._submit(_Request(records=records, durable=durable))

    def sync(self) -> Future[PathInfo | None]:
        """Bring everything put before to the disk itself."""
        return self._submit(_Request(durable=True))

    def put_nar_facts(self, node_key: bytes, facts: NarFacts) -> Future[PathInfo | None]:
        """Remember the facts of a node's NAR. A power cut may lose them: they can be calculated again."""
        return self._submit(_Request(nar_facts=(node_key, facts)))

    def forget_damaged(self, digest: bytes, place: Place) -> Future[PathInfo | None]:
        """Forget what was found damaged; see `damage.forget`."""
        return self._submit(_Request(damaged=(digest, place)))

    def close(self) -> None:
        """Finish what was asked for, bring everything to the disk itself, and stop."""
        with self._closing:
            self._closed = True
            self._requests.put(None)
        self._thread.join()
        self._writer.close()

    def _submit(self, request: _Request) -> Future[PathInfo | None]:
        with self._closing:
            if self.failure is not None:
                raise UnavailableError(f"the store must be opened again: {self.failure}")
            if self._closed:
                raise UnavailableError("the store is closed")
            self._requests.put(request)
        return request.done

    def _run(self) -> None:
        try:
            self._serve()
        except _SyncFailedError as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001  # a bug
            _log.exception("the committer of a store failed")
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Nobody may be left waiting for a thread that is gone."""
        with self._closing:
            self.failure = error
        accepted = [request for request in (*self._writing, *self._waiting) if not request.done.done()]
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None and request.done.set_running_or_notify_cancel():
                accepted.append(request)
        for request in accepted:
            request.done.set_exception(UnavailableError(f"the store must be opened again: {error}"))

    def _serve(self) -> None:
        stop = False
        while not stop:
            try:
                group, stop = self._collect(self._patience())
            except queue.Empty:
                group = []
            if group:
                self._settled = False
                self._writing = group
                if self._forget_lost(group):
                    self._forget_damaged(group)
                    self._write(group)
                self._writing = []
            if self._waiting and (stop or self._is_urgent() or monotonic() >= self._rest_until):
                self._commit()
            elif not group and not self._waiting:
                self._settled = self._settle()
            if self._requests.empty() or monotonic() >= self._sync_at:
                self._sync_records()
        if not self._settled:
            self._settle()

    def _patience(self) -> float | None:
        """Seconds to wait for the next request; None is for ever."""
        now = monotonic()
        until = self._rest_until if self._waiting else inf if self._settled else now + _SETTLE_AFTER
        return None if until == inf else max(until - now, 0)

    def _is_urgent(self) -> bool:
        return self._unnamed_bytes >= _UNNAMED_BYTES or any(request.durable for request in self._waiting)

    def _collect(self, timeout: float | None) -> tuple[list[_Request], bool]:
        """The requests that wait, as many as are written together, and whether to stop behind them."""
        request = self._requests.get(timeout=timeout)
        group: list[_Request] = []
        size = 0
        while request is not None:
            if request.done.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                group.append(request)
                size += request.size
            if size >= _GROUP_BYTES:
                return group, False
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _forget_lost(self, group: list[_Request]) -> bool:
        """Forget what lies in lost packs; where that cannot be done, nobody may hear that something is stored."""
        try:
            if self._lost_packs.sees_loss():
                self._lost_packs.forget()
                self._leave_lost_pack()
            elif self._lost_packs.changed != self._packs_changed:  # another process may have forgotten it
                self._leave_lost_pack()
            self._packs_changed = self._lost_packs.changed
        except StoreError as error:
            for request in group:
                request.done.set_exception(error)
            return False
        return True

    def _leave_lost_pack(self) -> None:
        """Go on with another pack where the own one is lost."""
        if not self._writer.is_lost:
            return
        if self._unnamed:
            raise _SyncFailedError("the pack that was written is gone")
        self._sync_at = inf
        self._writer.close()

    def _forget_damaged(self, group: list[_Request]) -> None:
        damaged = [request.damaged for request in group if request.damaged is not None]
        if damaged:
            try:
                forget(self._index, self._reader, damaged)
            except StoreError as error:
                # A full disk, for example: who reads it next finds it again.
                _log.warning("what was found damaged is not forgotten: %s", error)

    def _write(self, group: list[_Request]) -> None:
        """Compress and append what is new; those who are not content with that wait for the next commit."""
        try:
            contents = self._unknown(group)
            if self._unnamed_bytes >= _UNNAMED_BYTES:
                self._name([])
            places = self._append(contents) if contents else []
        except _SyncFailedError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
            self._writer.rewind()
            self._lost_packs.suspect()
            for request in group:
                request.done.set_exception(error)
            return
        self._writer.keep()
        for content, place in zip(contents, places, strict=True):
            self._unnamed[name_of(content)] = Written(content.kind, content.key, content.blob_size, place)
            self._unnamed_bytes += place.length
        for request in group:
            if request.lazy:
                request.done.set_result(None)
            else:
                self._waiting.append(request)

    def _commit(self) -> None:
        """Make visible what was written, and tell those who wait for it."""
        begun = monotonic()
        waiting, self._waiting = self._waiting, []
        try:
            results = self._name(waiting)
        except _SyncFailedError:
            self._writing = waiting
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
            # What was written stays, and is named by the next commit that works.
            self._writer.rewind()
            self._lost_packs.suspect()
            results = [error] * len(waiting)
        for request, result in zip(waiting, results, strict=True):
            if isinstance(result, Exception):
                request.done.set_exception(result)
            else:
                request.done.set_result(result)
        now = monotonic()
        # Who waited alone waits for each of its puts, one after the other: a rest would gather nothing. Waiting for a disk is rest.
        is_busy = len(waiting) > 1 and not any(request.durable for request in waiting)
        self._rest_until = now + _REST * (now - begun) if is_busy else now

    def _name(self, requests: list[_Request]) -> list[PathInfo | Exception | None]:
        synced: dict[int, int] = {}
        if any(request.durable or request.records for request in requests):
            self._make_room()
        if any(request.durable for request in requests):
            synced = self._sync_packs()
        with self._index.writing() as txn:
            self._name_contents(txn, self._unnamed.values())
            records: list[NewRecord] = []
            results = [self._apply(txn, request, records) for request in requests]
            if records:
                self._writer.append(records)
                if any(record.kind in DURABLE for record in records):
                    with self._poisoning(in_transaction=True):
                        self._writer.sync()
                    synced[self._writer.number] = self._writer.size
            self._name_packs(txn, synced)
        self._writer.keep()
        self._unnamed, self._unnamed_bytes = {}, 0
        if synced.get(self._writer.number) == self._writer.size:
            self._sync_at = inf
        elif records:
            self._sync_at = min(self._sync_at, monotonic() + _SYNC_WITHIN)
        return results

    def _unknown(self, group: list[_Request]) -> list[Content]:
        found: dict[Name, Content] = {}
        for request in group:
            for content in self._index.unknown(request.contents):
                if name_of(content) not in self._unnamed:
                    found.setdefault(name_of(content), content)
        return list(found.values())

    def _append(self, contents: list[Content]) -> list[Place]:
        records = self._records(contents)
        self._make_room()
        return self._writer.append(records)

    def _make_room(self) -> None:
        """Go on with the next pack where this one is full. What it holds is named first, else it would not count as its own."""
        if self._writer.is_full:
            if self._unnamed:
                self._name([])
            self._sync_records()
            self._writer.next_pack()
            with self._index.writing() as txn:  # so that it counts as a pack of this store, even if we die before the next commit
                self._name_packs(txn, {})

    def _records(self, contents: list[Content]) -> list[NewRecord]:
        unpacked = sum(len(each.payload) for each in contents if each.kind is Kind.CHUNK and each.packed is None)
        return new_records(contents, self._level, self._threads if unpacked >= _PARALLEL_FROM else 1)

    def _sync_records(self) -> None:
        """Bring records that are not durable to the disk itself: they are in the pack that is written now.

        While a client of small pushes thinks of its path info, this does half of what that would wait for.
        """
        if self._sync_at != inf:
            with self._poisoning():
                self._writer.sync()
            self._sync_at = inf

    def _sync_packs(self) -> dict[int, int]:
        """Bring all committed and appended bytes to the disk itself; the sizes of the packs that are there now."""
        with self._index.reading() as txn:
            synced = self._index.unsynced_packs(txn)
        with self._poisoning():
            for number in tuple(synced):
                if number != self._writer.number:
                    try:
                        self._reader.sync(number)
                    except CorruptError:  # it is lost, which is not the disk's failure
                        del synced[number]
            self._writer.sync()
        if self._writer.number:
            synced[self._writer.number] = self._writer.size
        return synced

    @contextmanager
    def _poisoning(self, *, in_transaction: bool = False) -> Iterator[None]:
        """Around every sync: where it fails, nobody may build on what was written. Tell, if we are in a write transaction."""
        try:
            yield
        except StoreError as error:
            _log.error("a sync failed, so nothing more is written until the store is opened again: %s", error)
            if in_transaction:
                self._mark.poison()
            else:
                self._poison()
            raise _SyncFailedError(str(error)) from error

    def _poison(self) -> None:
        """Poison the mark while nobody else can take it away."""
        try:
            with self._index.writing():
                self._mark.poison()
        except StoreError:
            self._mark.poison()

    def _name_contents(self, txn: Txn, contents: Iterable[Written]) -> list[Written]:
        """Name contents; those that were new."""
        unique = stored = 0
        named: list[Written] = []
        # In the order of the keys: neighbours on a page of the index are written while it is at hand.
        for each in sorted(contents, key=name_of):
            kind, key, blob_size, place = each
            # Another process may have been first since `_unknown`; its record stays, ours is garbage.
            if self._index.put_content(txn, kind, key, place, blob_size):
                named.append(each)
                if kind is Kind.CHUNK:
                    unique += place.length
                    stored += place.stored
        if unique:
            self._index.count(txn, UNIQUE_BYTES, unique)
            self._index.count(txn, STORED_BYTES, stored)
        return named

    def _apply(self, txn: Txn, request: _Request, records: list[NewRecord]) -> PathInfo | Exception | None:
        """Do what a request asks beside storing contents; what must be durable is added to `records`."""
        if request.nar_facts:
            self._index.put_nar_facts(txn, *request.nar_facts)
        if request.pack:
            self._name_pack(txn, *request.pack)
        for number in {each.place.pack for each in self._name_contents(txn, request.written)}:
            self._name_pack(txn, number, request.sizes[number])
        if request.records:
            sequence = self._index.count(txn, SEQUENCE, 1)
            records.append(keyed_records(sequence, request.records, durable=request.durable))
            for key, value in request.records.items():
                self._index.put_record(txn, key, sequence, value)
        if request.path_info is None:
            return None
        output_hash = request.path_info.store_path.output_hash
        stored = self._index.path_info_in(txn, output_hash)
        try:
            merged = request.path_info if stored is None else PathInfo.stored(stored).merged(request.path_info, request.trust)
        except StoreError as error:
            return error
        if merged.encoded != stored:
            sequence = self._index.count(txn, SEQUENCE, 1)
            records.append(path_info_record(output_hash, sequence, merged.encoded))
            self._index.put_path_info(txn, output_hash, sequence, merged.encoded)
        return merged

    def _name_pack(self, txn: Txn, number: int, size: int) -> None:
        """Commit at least `size` bytes of a pack."""
        committed, synced = self._index.pack_sizes(txn, number)
        if size > committed:
            self._index.put_pack_sizes(txn, number, size, synced)

    def _name_packs(self, txn: Txn, synced: dict[int, int]) -> None:
        own = self._writer.number
        for number in {*synced, own} - {0}:
            committed, on_disk = self._index.pack_sizes(txn, number)
            committed = self._writer.size if number == own else committed
            self._index.put_pack_sizes(txn, number, committed, max(on_disk, synced.get(number, 0)))

    def _settle(self) -> bool:
        """Sync packs and index, and take the mark away; whether that worked."""
        try:
            self._leave_lost_pack()  # or it would be named again, which another process has just taken out of the index
            if self._unnamed:
                self._name([])
            synced = self._sync_packs()
            with self._index.writing() as txn:
                self._name_packs(txn, synced)
            with self._index.writing() as txn:
                if self._index.unsynced_packs(txn):
                    return False  # another process is at work; whoever rests last settles
                with self._poisoning(in_transaction=True):
                    self._index.sync()
                self._mark.clear()
        except StoreError:
            return False  # a full disk, for example: the mark stays, and a power cut costs a rebuild
        return True

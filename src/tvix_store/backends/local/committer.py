"""The committer: one thread a process that appends entries to the pack and commits them to the index, many requests at a time.

Order of a commit, and what a crash leaves behind:
1. Known contents are dropped, new chunks compressed.
   Nothing.
2. Entries are appended to the pack. Pieces of a large blob may stay there until the whole blob is put. For a path
   info, or durable records, all packs with unsynced bytes are then synced.
   Bytes that no index names; cut off by the pack's next owner.
3. One index transaction names them. Path infos and records are appended, and synced once, inside it, so that merges happen
   one by one.
   All of the group, or nothing. After a power cut the packs are replayed from the last checkpoint on.
4. The callers are told.

What was found damaged is forgotten before anything else of its group: a put behind it stores it anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import monotonic

from tvix_store.backends.local.contents import Content, Name, Written, name_of, new_records
from tvix_store.backends.local.damage import Forget
from tvix_store.backends.local.durability import SyncFailedError
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import COLLECTED
from tvix_store.backends.local.lost_packs import LostPacks
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.pack_syncs import PackSyncs
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import SYNCED, Kind, NewRecord
from tvix_store.backends.local.request_queue import RequestQueue
from tvix_store.backends.local.requests import Commit, Look, Request, Result, WriteContents
from tvix_store.backends.local.taking_back import take_back
from tvix_store.errors import StoreError
from tvix_store.model.path_info import PathInfo
from tvix_store.telemetry import meters

_log = logging.getLogger(__name__)
_GROUP_BYTES = 16 << 20
"""Payload bytes that are compressed and written together at most; bounds memory."""
_UNNAMED_BYTES = 64 << 20
"""Payload bytes that may be written and wait for a commit to name them."""
_REST = 2.0
"""How many times as long as the last commit took, the next one may wait for more to do. A commit rewrites most leaves of a small
index, since digests are random keys: without a rest, 200 commits in the import of a tree cost as much as compressing it."""
_IDLE = 10.0
"""Seconds without a request after which the pack is given up, so that it can be rewritten. To take one again takes milliseconds."""
_PARALLEL_FROM = 256 << 10
"""Payload bytes from which compression uses more than one thread: starting them costs about 100 µs."""


class Committer:
    """Does what requests ask for. Its methods may be called from any thread. `left` is called when it gives up its pack."""

    def __init__(
        self,
        index: Index,
        writer: PackWriter,
        reader: PackReader,
        lost_packs: LostPacks,
        *,
        level: int,
        threads: int,
        left: Callable[[], None],
    ) -> None:
        self._left = left
        self._index = index
        self._writer = writer
        self._reader = reader
        self._lost_packs = lost_packs
        self._losing: Future[PathInfo | None] | None = None
        self._packs_changed = 0
        self._level = level
        self._threads = threads
        self._unnamed: dict[Name, Written] = {}
        """Written, but not yet named in the index."""
        self._unnamed_bytes = 0
        self._waiting: list[Request] = []
        """Written, but their callers not yet told: the next commit does that."""
        self._rest_until = 0.0
        self._syncs = PackSyncs(index, writer, reader)
        self._requests = RequestQueue()
        self._writing: list[Request] = []
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
        self._losing = self.submit(Look()) if self._lost_packs.sees_loss() else None
        return self._losing

    def put_contents(self, contents: Sequence[Content]) -> Future[PathInfo | None]:
        """As `Sink.put_contents`. They survive a killed process from then on, and a power cut from the next durable put on."""
        return self.submit(Request(contents))

    def write_contents(self, contents: Sequence[Content]) -> Future[PathInfo | None]:
        """As `Sink.write_contents`."""
        return self.submit(WriteContents(contents))

    def submit(self, request: Request) -> Future[PathInfo | None]:
        """Have a request done. The future raises the request's StoreError, or that of the disk; else as `RequestQueue.put`."""
        return self._requests.put(request)

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be put any more, until the store is opened again."""
        return self._requests.failure

    def close(self) -> None:
        """Finish what was asked for, and stop."""
        self._requests.close()
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        try:
            self._serve()
        except SyncFailedError as error:
            self._requests.fail(error, (*self._writing, *self._waiting))
        except Exception as error:  # noqa: BLE001  # a bug
            _log.exception("the committer of a store failed")
            self._requests.fail(error, (*self._writing, *self._waiting))

    def _serve(self) -> None:
        stop = False
        while not stop:
            group, stop = self._requests.take(self._patience(), _GROUP_BYTES)
            if group:
                self._writing = group
                if self._forget_lost(group):
                    self._forget_damaged(group)
                    self._write(group)
                self._writing = []
            if self._waiting and (stop or self._is_urgent() or monotonic() >= self._rest_until):
                self._commit()
            if self._requests.is_empty() or self._syncs.is_due:
                self._syncs.sync_records()
            if not group and not self._waiting:
                self._leave_pack()
        self._name_rest()

    def _patience(self) -> float | None:
        """Seconds to wait for the next request; None is for ever."""
        if self._waiting:
            return max(self._rest_until - monotonic(), 0)
        return _IDLE if self._writer.number else None

    def _is_urgent(self) -> bool:
        return self._unnamed_bytes >= _UNNAMED_BYTES or any(request.is_durable for request in self._waiting)

    def _forget_lost(self, group: list[Request]) -> bool:
        """Forget what lies in lost packs; where that cannot be done, nobody may hear that something is stored."""
        try:
            if self._lost_packs.sees_loss():
                self._leave_lost_pack()
                self._name_appended()
                self._make_room()
                self._lost_packs.forget(self._writer)
            elif self._lost_packs.changed != self._packs_changed:  # another process may have forgotten it
                self._leave_lost_pack()
            self._packs_changed = self._lost_packs.changed
        except SyncFailedError:
            raise
        except StoreError as error:
            for request in group:
                request.done.set_exception(error)
            return False
        return True

    def _leave_pack(self) -> None:
        """Go on with another pack from now on, so that this one can be rewritten."""
        if not self._unnamed:
            self._syncs.sync_records()
            self._writer.close()
            self._left()

    def _leave_lost_pack(self) -> None:
        """Go on with another pack where the own one is lost."""
        if not self._writer.is_lost:
            return
        if self._unnamed:
            raise SyncFailedError("the pack that was written is gone")
        self._syncs.forget_records()
        self._writer.close()

    def _forget_damaged(self, group: list[Request]) -> None:
        forgets = [request for request in group if isinstance(request, Forget)]
        if forgets:
            forget = Forget.all_of(forgets)
            try:
                if forget.prepare(self._index, self._reader):
                    self._name([forget])
            except SyncFailedError:
                raise
            except StoreError as error:
                # A full disk, for example: who reads it next finds it again.
                self._writer.rewind()
                _log.warning("what was found damaged is not forgotten: %s", error)
            for each in forgets:
                each.done.set_result(None)
            group[:] = [request for request in group if not isinstance(request, Forget)]

    def _write(self, group: list[Request]) -> None:
        """Compress and append new contents. A request that needs more waits for the next commit."""
        try:
            contents = self._unknown(group)
            if self._unnamed_bytes >= _UNNAMED_BYTES:
                self._name([])
            places = self._append(contents) if contents else []
        except SyncFailedError:
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
            if request.is_lazy:
                request.done.set_result(None)
            else:
                self._waiting.append(request)

    def _commit(self) -> None:
        """Make visible what was written, and tell those who wait for it."""
        begun = monotonic()
        waiting, self._waiting = self._waiting, []
        results: Sequence[Result | Exception]
        try:
            results = self._name(waiting)
            if any(request.leaves_pack for request in waiting):
                self._leave_pack()
        except SyncFailedError:
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
        meters.COMMIT_SECONDS.of().observe_in_any_thread(now - begun)
        # Who waited alone waits for each of its puts, one after the other: a rest would gather nothing. Waiting for a disk is rest.
        is_busy = len(waiting) > 1 and not any(request.is_durable for request in waiting)
        self._rest_until = now + _REST * (now - begun) if is_busy else now

    def _name(self, requests: list[Request]) -> list[Result]:
        if any(request.appends or request.is_durable for request in requests):
            self._make_room()
        synced = self._syncs.sync_all() if any(request.is_durable for request in requests) else {}
        found = self._index.wanted_back  # what is found from now on is for the next commit
        wanted_back = [found.pop() for _ in range(len(found))]
        try:
            return self._name_and_take_back(requests, synced, wanted_back)
        except BaseException:
            found.update(wanted_back)
            raise

    def _name_and_take_back(self, requests: list[Request], synced: dict[int, int], wanted_back: list[Name]) -> list[Result]:
        with self._index.writing() as txn:
            commit = Commit(self._index, txn, self._reader)
            if not take_back(self._index, self._reader, txn, wanted_back):
                # It was found, and may be deleted: what is known of NARs may rely on it.
                self._index.count(txn, COLLECTED, 1)
            commit.name_contents(self._unnamed.values())
            results = [request.apply(commit) or commit.refusal(request.contents) for request in requests]
            commit.end()
            is_synced = any(entry.kind in SYNCED for entry in commit.entries)
            if is_synced:
                commit.accept({number: size for number, size in synced.items() if number != self._writer.number})
            if commit.entries:
                self._writer.append(commit.entries)
                if is_synced:
                    self._writer.sync()
                    synced[self._writer.number] = self._writer.size
            self._index.name_packs(txn, self._writer.number, self._writer.size, synced)
        self._writer.keep()
        self._unnamed, self._unnamed_bytes = {}, 0
        if synced.get(self._writer.number) == self._writer.size:
            self._syncs.forget_records()
        elif commit.entries:
            self._syncs.remember_records()
        return results

    def _name_appended(self) -> None:
        """Name what was appended since the last commit."""
        if self._unnamed:
            self._name([])

    def _unknown(self, group: list[Request]) -> list[Content]:
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
            self._name_appended()
            self._syncs.sync_records()
            self._writer.next_pack()
            with self._index.writing() as txn:  # so that it counts as a pack of this store, even if we die before the next commit
                self._index.name_packs(txn, self._writer.number, self._writer.size, {})

    def _records(self, contents: list[Content]) -> list[NewRecord]:
        unpacked = sum(len(each.payload) for each in contents if each.kind is Kind.CHUNK and each.packed is None)
        return new_records(contents, self._level, self._threads if unpacked >= _PARALLEL_FROM else 1)

    def _name_rest(self) -> None:
        """Name pieces of blobs that were not put to their end: whoever puts one again need not store them."""
        try:
            self._leave_lost_pack()
            self._name_appended()
        except SyncFailedError:
            raise
        except StoreError as error:
            _log.warning("pieces of blobs are not kept: %s", error)

"""The committer: one thread a process that appends records to the pack and commits them to the index, many requests at a time.

Requests that wait while a commit runs are committed together by the next one: compressed in one native call, written with one
system call, indexed in one transaction, and, where one of them asks for it, synced once.

Order of a commit, and what a crash leaves behind:
1. Known contents are dropped, new chunks compressed.
   Nothing.
2. Records are appended to the pack. For a path info, all packs with unsynced bytes are then synced.
   Bytes that no index names; cut off by the pack's next owner.
3. One index transaction names the records. A path info's record is appended, and synced, inside it, so that merges
   happen one by one.
   All of the group, or nothing. After a power cut the index is made anew from the packs, which hold all that was synced.
4. The callers are told.

While it has nothing to do, the committer syncs the index and takes the mark of `unsynced.py` away.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import cast

import zstandard

from tvix_store.backends.local.index import SEQUENCE, STORED_BYTES, UNIQUE_BYTES, Index, Txn
from tvix_store.backends.local.packs import PackReader, PackWriter, Place
from tvix_store.backends.local.records import KEY_SIZE, Buffer, Kind, NewRecord, path_info_record
from tvix_store.backends.local.unsynced import UnsyncedMark
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.model.path_info import NarFacts, PathInfo

_GROUP_BYTES = 8 << 20
"""Payload bytes that one commit takes together at most; bounds memory."""
_SETTLE_AFTER = 1.0
"""Seconds without work after which the index is synced."""
_PARALLEL_FROM = 256 << 10
"""Payload bytes from which compression uses more than one thread: starting them costs about 100 µs."""


@dataclass(frozen=True, slots=True)
class Content:
    """Something to store under a key: a chunk or directory (its digest), or a segment of a chunk list."""

    kind: Kind
    key: bytes
    payload: Buffer
    blob_size: int = 0
    """Of the blob that a chunk list belongs to."""


@dataclass(slots=True)
class _Request:
    contents: Sequence[Content] = ()
    path_info: PathInfo | None = None
    nar_facts: tuple[bytes, NarFacts] | None = None
    done: Future[PathInfo | None] = field(default_factory=Future)

    @property
    def size(self) -> int:
        return sum(len(content.payload) for content in self.contents)


class Committer:
    """Puts things into a local store. Its methods may be called from any thread; the futures are set when the put has happened."""

    def __init__(
        self, index: Index, writer: PackWriter, reader: PackReader, mark: UnsyncedMark, *, level: int, threads: int
    ) -> None:
        self._index = index
        self._writer = writer
        self._reader = reader
        self._mark = mark
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._threads = threads
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tvix-store-committer", daemon=True)
        self._thread.start()

    def put_contents(self, contents: Sequence[Content]) -> Future[PathInfo | None]:
        """Store contents. They survive a killed process from then on, and a power cut from the next durable put on."""
        return self._submit(_Request(contents=contents))

    def put_path_info(self, path_info: PathInfo) -> Future[PathInfo | None]:
        """Store a path info durably, with everything put before; the result is what is stored now.

        Raises (in the future):
            ConflictError: as `PathInfo.merged`.
        """
        return self._submit(_Request(path_info=path_info))

    def put_nar_facts(self, node_key: bytes, facts: NarFacts) -> Future[PathInfo | None]:
        """Remember the facts of a node's NAR. A power cut may lose them: they can be calculated again."""
        return self._submit(_Request(nar_facts=(node_key, facts)))

    def close(self) -> None:
        """Finish what was asked for, bring everything to the disk itself, and stop."""
        if not self._closed:
            self._closed = True
            self._requests.put(None)
            self._thread.join()

    def _submit(self, request: _Request) -> Future[PathInfo | None]:
        if self._closed:
            raise UnavailableError("the store is closed")
        self._requests.put(request)
        return request.done

    def _run(self) -> None:
        settled, stop = True, False
        while not stop:
            try:
                group, stop = self._collect(timeout=None if settled else _SETTLE_AFTER)
            except queue.Empty:
                settled = self._settle()
                continue
            if group:
                settled = False
                self._commit_or_fail(group)
        if not settled:
            self._settle()

    def _collect(self, timeout: float | None) -> tuple[list[_Request], bool]:
        """The requests that wait, as many as one commit takes, and whether to stop behind them."""
        request = self._requests.get(timeout=timeout)
        group: list[_Request] = []
        size = 0
        while request is not None:
            group.append(request)
            size += request.size
            if size >= _GROUP_BYTES:
                return group, False
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit_or_fail(self, group: list[_Request]) -> None:
        try:
            results = self._commit(group)
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers get it
            # A full disk may still have room for the small ones, and one bad request must not fail its neighbours.
            if len(group) > 1:
                for request in group:
                    self._commit_or_fail([request])
                return
            results = [error]
        for request, result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                request.done.set_exception(result)
            else:
                request.done.set_result(result)

    def _commit(self, group: list[_Request]) -> list[PathInfo | Exception | None]:
        contents = self._unknown(group)
        records = self._records(contents)
        try:
            places = self._writer.append(records) if records else []
            synced = self._sync_packs() if any(request.path_info for request in group) else {}
            with self._index.writing() as txn:
                self._mark.set()
                self._name_contents(txn, contents, places)
                results = [self._apply(txn, request, synced) for request in group]
                self._name_packs(txn, synced)
        except BaseException:
            self._writer.rewind()
            raise
        self._writer.commit()
        return results

    def _unknown(self, group: list[_Request]) -> list[Content]:
        found: dict[tuple[Kind, bytes], Content] = {}
        tables = self._index.tables
        with self._index.reading() as txn:
            for request in group:
                for content in request.contents:
                    if txn.get(content.key, db=tables[content.kind]) is None:
                        found.setdefault((content.kind, content.key), content)
        return list(found.values())

    def _records(self, contents: list[Content]) -> list[NewRecord]:
        packed = self._compressed([content.payload for content in contents if content.kind is Kind.CHUNK])
        return [
            NewRecord(
                content.kind,
                content.key[:KEY_SIZE],
                next(packed) if content.kind is Kind.CHUNK else content.payload,
                len(content.payload),
            )
            for content in contents
        ]

    def _compressed(self, payloads: list[Buffer]) -> Iterator[Buffer]:
        """Each payload as one zstd frame, or as it is where that is not smaller."""
        # The native call leaves out empty inputs, so they must not go in.
        some = [payload for payload in payloads if len(payload)]
        threads = self._threads if sum(map(len, some)) >= _PARALLEL_FROM else 1
        frames = iter(self._compressor.multi_compress_to_buffer(some, threads=threads)) if some else iter(())
        for payload in payloads:
            frame = next(frames) if len(payload) else payload
            # A BufferSegment offers the buffer protocol, which its type stub does not say.
            yield cast(Buffer, frame) if len(frame) < len(payload) else payload

    def _sync_packs(self) -> dict[int, int]:
        """Bring all committed and appended bytes to the disk itself; the sizes of the packs that are there now."""
        with self._index.reading() as txn:
            synced = self._index.unsynced_packs(txn)
        for number in synced:
            if number != self._writer.number:
                self._reader.sync(number)
        self._writer.sync()
        if self._writer.number:
            synced[self._writer.number] = self._writer.size
        return synced

    def _name_contents(self, txn: Txn, contents: list[Content], places: list[Place]) -> None:
        unique = stored = 0
        for content, place in zip(contents, places, strict=True):
            # Another process may have been first since `_unknown`; its record stays, ours is garbage.
            if self._index.put_content(txn, content.kind, content.key, place, content.blob_size) and content.kind is Kind.CHUNK:
                unique += place.length
                stored += place.stored
        if unique:
            self._index.count(txn, UNIQUE_BYTES, unique)
            self._index.count(txn, STORED_BYTES, stored)

    def _apply(self, txn: Txn, request: _Request, synced: dict[int, int]) -> PathInfo | Exception | None:
        if request.nar_facts:
            self._index.put_nar_facts(txn, *request.nar_facts)
        if request.path_info is None:
            return None
        output_hash = request.path_info.store_path.output_hash
        stored = self._index.path_info_in(txn, output_hash)
        try:
            merged = request.path_info if stored is None else PathInfo.stored(stored).merged(request.path_info)
        except StoreError as error:
            return error
        if merged.encoded != stored:
            sequence = self._index.count(txn, SEQUENCE, 1)
            self._writer.append([path_info_record(output_hash, sequence, merged.encoded)])
            self._writer.sync()
            synced[self._writer.number] = self._writer.size
            self._index.put_path_info(txn, output_hash, sequence, merged.encoded)
        return merged

    def _name_packs(self, txn: Txn, synced: dict[int, int]) -> None:
        own = self._writer.number
        for number in {*synced, own} - {0}:
            committed, on_disk = self._index.pack_sizes(txn, number)
            committed = self._writer.size if number == own else committed
            self._index.put_pack_sizes(txn, number, committed, max(on_disk, synced.get(number, 0)))

    def _settle(self) -> bool:
        """Sync packs and index, and take the mark away; whether that worked."""
        try:
            synced = self._sync_packs()
            with self._index.writing() as txn:
                self._name_packs(txn, synced)
            with self._index.writing() as txn:
                if self._index.unsynced_packs(txn):
                    return False  # another process is at work; whoever rests last settles
                self._index.sync()
                self._mark.clear()
        except StoreError:
            return False  # a full disk, for example: the mark stays, and a power cut costs a rebuild
        return True

"""LocalStaging: content in packs of its own, which nobody sees until it is accepted.

The owner of a pack may cut off bytes that the index does not name, and the next owner does so when the owner was killed. So content
is cut off in all three cases: it is taken back, its process is killed, or others have stored the same meanwhile. Of a stage of a
few hundred KiB nothing is written before it is accepted: then all of it goes to the committer, in one request. Where the index is
lost as well, records in the pack tell where a stage begins, and whether it was accepted: see `records.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from tempfile import SpooledTemporaryFile
from typing import Any

from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.contents import ROW_SIZE, Content, Name, Written, name_of, new_records, read_rows
from tvix_store.backends.local.directories import LocalDirectories
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.path_infos import node_key
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.backends.local.requests import NameContents, NamePack, NarOfNode, PutTree
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.services.records import check_records
from tvix_store.services.staging import NO_RECORDS, StagedNar

_HELD = 256 << 10
"""Bytes of a stage that are kept in memory."""
_JOURNAL_BYTES = 1 << 20
_NAMED_AT_ONCE = 10_000
_SEEN = 32_768
"""Contents of which it is remembered that they are staged: 4 GiB in chunks of 128 KiB, 6 MB of memory. Others are written twice."""


class LocalStaging:
    """The Staging of a local store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, *, rechecks: bool = False) -> LocalStage:
        return LocalStage(self._engine, rechecks=rechecks)


class LocalStage:
    """A Stage, and the sink of its services. Nothing is taken from the disk before the first content comes."""

    def __init__(self, engine: Engine, *, rechecks: bool) -> None:
        self._engine = engine
        self._rechecks = rechecks
        self._since = engine.index.collected()
        self.blobs = LocalBlobs(engine, self)
        self.directories = LocalDirectories(engine, self)
        self._held: dict[Name, Content] | None = None if rechecks else {}
        """All of the stage, while it is little."""
        self._held_size = 0
        self._holding = threading.Lock()
        self._written_first: Future[None] | None = None
        """The write of the held contents to a pack. The callers who put them were already told that they are staged."""
        self._lock = threading.Lock()
        self._writers: list[PackWriter] = []
        """The last is written to, the others are full."""
        self._seen: set[Name] = set()
        self._written_size = 0
        """Bytes of the chunks that were written, uncompressed."""
        self._journal = SpooledTemporaryFile(max_size=_JOURNAL_BYTES, dir=str(engine.directory))  # noqa: SIM115  # closed by `close`
        self._naming: Future[Any] | None = None
        self._accepted = self._closed = False

    def new_bytes(self) -> int:
        held = self._engine.index.unknown(list(self._held.values())) if self._held is not None else []
        return self._written_size + _size_of_chunks(held)

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        check_records(records)
        facts = None if nar is None else NarOfNode(node_key(nar.node), nar.facts, self._since)
        if self._held is not None:
            self._naming = self._engine.committer.submit(PutTree(list(self._held.values()), facts, records))
            await asyncio.wrap_future(self._naming)
        else:
            await self._accept_written(facts, records)
        self._accepted = True

    async def _accept_written(self, facts: NarOfNode | None, records: Mapping[bytes, bytes]) -> None:
        if self._written_first is not None:
            await asyncio.wrap_future(self._written_first)
        for writer in self._writers:
            if writer.is_lost:
                raise UnavailableError(f"pack {writer.number:08x} was removed while it was written; put the content again")
            writer.accept_stage()
        batches = self._batches()
        batch: tuple[list[Written], dict[int, int]] | None = next(batches, ([], {}))
        while batch is not None:
            following = next(batches, None)
            # What is true of all of it is known with the last of it.
            more = (facts, records) if following is None else (None, NO_RECORDS)
            self._naming = self._engine.committer.submit(NameContents(*batch, *more))
            await asyncio.wrap_future(self._naming)
            batch = following

    async def close(self) -> None:
        if self._accepted:
            self._release()
            return
        # It happens also where the caller does not wait for it.
        await asyncio.shield(asyncio.wrap_future(self._engine.start_in_thread(self._release)))

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        known = self._seen if self._held is None else self._held
        new = [each for each in contents if name_of(each) not in known]
        if self._engine.committer.losing() is not None:
            return new
        unknown = self._engine.index.unknown(new)
        if self._rechecks:
            stored = set(map(name_of, new)).difference(map(name_of, unknown))
            unknown += [each for each in new if name_of(each) in stored and self._is_damaged(each)]
        return unknown

    def _is_damaged(self, content: Content) -> bool:
        """Whether what the store has of it is damaged. Then it is forgotten before what is staged gets named."""
        engine, key = self._engine, content.key
        try:
            match content.kind:
                case Kind.CHUNK_LIST:
                    engine.segment(key[:KEY_SIZE], int.from_bytes(key[KEY_SIZE:], "big"))
                    return True  # it is forgotten with any of its chunks, by whoever finds that damaged, at any moment
                case kind:
                    place = engine.index.live_place(kind, key)
                    if place is None:
                        return True  # somebody has found that out just now
                    engine.payload(key, place)
        except CorruptError:
            return True
        return False

    def holds(self, size: int) -> bool:
        return self._held is not None and self._held_size + size <= _HELD

    def put_contents(self, contents: Sequence[Content]) -> Future[None]:
        with self._holding:
            held = self._held
            if held is not None:
                size = sum(len(each.payload) for each in contents)
                if self.holds(size):
                    self._held_size += size
                    held.update((name_of(each), each) for each in contents)
                    return _nothing_to_do()
                self._held = None
        if held:
            self._written_first = self._engine.off_the_loop(self._write, [*held.values(), *contents])
            return self._written_first
        return self._engine.off_the_loop(self._write, contents)

    write_contents = put_contents

    def _write(self, contents: Sequence[Content]) -> None:
        contents = self.unknown(contents)
        records = new_records(contents, self._engine.settings.compression_level, threads=1)
        with self._lock:
            if self._closed:
                raise UnavailableError("content came for a stage that is closed")
            fresh = {
                name_of(content): (content, record)
                for content, record in zip(contents, records, strict=True)
                if name_of(content) not in self._seen
            }
            if fresh:
                writer = self._writer()
                places = writer.append([record for _, record in fresh.values()])
                writer.keep()
                self._written_size += _size_of_chunks(content for content, _ in fresh.values())
                self._remember([content for content, _ in fresh.values()], places)

    def _writer(self) -> PackWriter:
        """The one to append with."""
        if not self._writers or self._writers[-1].is_full:
            writer = self._engine.spare_packs.take()
            self._writers.append(writer)
            if not writer.is_full:
                writer.begin_stage()
                return writer
            writer.next_pack()
            writer.begin_stage()
            # It may be a new one, which is to count as one of the store before anything is cut off it.
            self._engine.committer.submit(NamePack(writer.number, writer.size)).result()
        return self._writers[-1]

    def _remember(self, contents: Sequence[Content], places: Sequence[Place]) -> None:
        with disk_errors(self._engine.directory):
            for content, place in zip(contents, places, strict=True):
                self._journal.write(Written(content.kind, content.key, content.blob_size, place).to_bytes())
        if len(self._seen) > _SEEN:
            self._seen.clear()
        self._seen.update(map(name_of, contents))

    def _batches(self) -> Iterator[tuple[list[Written], dict[int, int]]]:
        """The staged contents in batches, each with the bytes of each pack that count with it: up to the end of the last named
        entry."""
        sizes = {writer.number: writer.size for writer in self._writers}
        batches = self._written()
        batch = next(batches, None)
        while batch is not None:
            following = next(batches, None)
            ends = {each.place.pack: each.place.offset + each.place.stored for each in batch}
            unfinished = following[0].place.pack if following else 0  # one pack is written after the other
            yield batch, {number: end if number == unfinished else sizes[number] for number, end in ends.items()}
            batch = following

    def _written(self) -> Iterator[list[Written]]:
        """What was staged, in the order in which it came."""
        self._journal.seek(0)
        while rows := self._journal.read(_NAMED_AT_ONCE * ROW_SIZE):
            yield read_rows(rows)

    def _release(self) -> None:
        # The committer must finish naming before the unnamed bytes are cut off.
        if self._naming is not None and not self._naming.cancel():
            wait((self._naming,))
        with self._lock:
            self._closed = True
            while self._writers:
                self._engine.spare_packs.give_back(self._writers.pop())
            self._journal.close()


def _size_of_chunks(contents: Iterable[Content]) -> int:
    return sum(len(each.payload) for each in contents if each.kind is Kind.CHUNK)


def _nothing_to_do() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done

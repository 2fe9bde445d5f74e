"""Rules of docs/design/local.md that a store breaks without anybody noticing, until something else goes wrong."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.local.store_files import make_index_anew
from tests.backends.local.test_checkpoint import engine_of
from tvix_store.backends.local import open_store
from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.ledger import STORED_BYTES, UNIQUE_BYTES
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind, NewRecord, keyed_records, path_info_record
from tvix_store.backends.local.requests import Commit, Look
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, pieces

PAGE = Path(__file__).parents[3] / "docs/design/local.md"
PATH = StorePath(b"p" * 20, "path")
OLD = PathInfo(PATH, FileNode(EMPTY, 0), NarFacts(1, b"1" * 32))
NEW = PathInfo(PATH, FileNode(Digest.of(b"new"), 3), NarFacts(2, b"2" * 32))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([b"the first pack"])
        yield store


def append_elsewhere(store: Store, entries: list[NewRecord]) -> int:
    """Append entries to a pack of their own, which the index counts; its number."""
    engine = engine_of(store)
    writer = engine.spare_packs.take()
    writer.next_pack()
    writer.append(entries)
    writer.keep()
    with engine.index.writing() as txn:
        Commit(engine.index, txn, engine.reader).name_pack(writer.number, writer.size)
    number = writer.number
    engine.spare_packs.give_back(writer)
    return number


async def test_of_two_records_the_newer_one_counts_in_whatever_order_packs_are_replayed(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        for _ in range(5):
            await store.records.put({b"key": b"new"})
        await store.records.put({b"deleted": b"old"})
        await store.records.delete([b"deleted"])
        await store.path_infos.put(NEW)
        old = [
            keyed_records(1, {b"key": b"old", b"deleted": b"old"}, durable=True),
            path_info_record(PATH.output_hash, 1, OLD.encoded),
        ]
        assert append_elsewhere(store, old) == 2
    make_index_anew(tmp_path / "store")
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        assert await store.records.get(b"key") == b"new"
        assert await store.records.get(b"deleted") is None
        assert await store.path_infos.get(PATH.output_hash) == NEW


async def test_a_pack_has_one_writer_at_a_time(store: Store) -> None:
    engine = engine_of(store)
    writers = [engine._new_writer() for _ in range(3)]
    for writer in writers:
        writer.next_pack()
    assert {writer.number for writer in writers}.isdisjoint({engine.committer._writer.number})
    assert len({writer.number for writer in writers}) == 3
    for writer in writers:
        writer.close()


async def test_the_committed_size_of_a_pack_never_shrinks(store: Store) -> None:
    index = engine_of(store).index
    with index.writing() as txn:
        before, _ = index.pack_sizes(txn, 1)
        Commit(index, txn, engine_of(store).reader).name_pack(1, before - 1)
        assert index.pack_sizes(txn, 1)[0] == before


async def test_content_that_is_stored_twice_counts_once_and_stays_where_it_was(store: Store) -> None:
    index = engine_of(store).index
    first, second = Place(7, 100, 10, 20), Place(8, 100, 11, 20)
    with index.writing() as txn:
        unique, stored = index.counter(txn, UNIQUE_BYTES), index.counter(txn, STORED_BYTES)
        for place in (first, second):
            Commit(index, txn, engine_of(store).reader).name_contents([Written(Kind.CHUNK, b"k" * 32, 0, place)])
        assert index.place_in(txn, Kind.CHUNK, b"k" * 32) == first
        assert (index.counter(txn, UNIQUE_BYTES), index.counter(txn, STORED_BYTES)) == (unique + 20, stored + 10)
        index.drop_content(txn, Kind.CHUNK, b"k" * 32, first)


async def test_a_full_pack_is_named_before_another_one_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next writer, which may be the same one, cuts off what is not named yet."""
    left: list[tuple[int, int]] = []
    next_pack = PackWriter.next_pack

    def look_and_go_on(writer: PackWriter) -> None:
        if writer.number:
            left.append((writer.size, writer._committed_size(writer.number)))
        next_pack(writer)

    monkeypatch.setattr(PackWriter, "next_pack", look_and_go_on)
    async with await open_store(tmp_path / "store", pack_size=1 << 20) as store:
        await store.blobs.put(pieces(noise(20_000_000, "of many packs"), 1 << 20))
    assert len(left) > 3
    assert [size for size, _ in left] == [committed for _, committed in left]


async def test_who_waits_for_a_committer_that_dies_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = threading.Event()

    def die(_: Committer) -> None:
        assert dies.wait(20)
        raise AssertionError("a bug")

    monkeypatch.setattr(Committer, "_serve", die)
    async with await open_store(tmp_path / "store") as store:
        waiting = engine_of(store).committer.submit(Look())
        dies.set()
        with pytest.raises(UnavailableError, match="must be opened again"):
            await asyncio.wait_for(asyncio.wrap_future(waiting), 10)


def test_each_rule_names_tests_that_there_are() -> None:
    """The page says of each rule which test would fail, as `test_file.py -k words`."""
    section = PAGE.read_text().partition("## The rules, and what keeps them")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith(("| rule", "|---"))]
    assert len(rows) >= 26
    for row in rows:
        named = re.findall(r"`(test_\w+\.py) -k (\w+)`", row)
        assert named, row
        for file, words in named:
            functions = re.findall(r"def (test_\w+)", (Path(__file__).parent / file).read_text())
            assert any(words in function for function in functions), (file, words)

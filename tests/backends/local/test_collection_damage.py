"""What is damaged, cut off or half put, while content is condemned and deleted: nothing needed goes with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from tests.backends.local.collected_history import store_of_long_lists
from tests.backends.local.raw_content import RawContent
from tests.backends.local.store_files import index_file
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import (
    GRACE,
    TREE,
    collect_garbage,
    digest_of,
    is_whole,
    packs,
    put_path,
    remove,
    root_of,
)
from tvix_store.backends.local import chunk_lists, open_store
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.collection.mark import Mark
from tvix_store.backends.local.content_index import ContentIndex
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.path_infos import node_key
from tvix_store.backends.local.records import Kind
from tvix_store.backends.local.requests import Commit, NarOfNode, PutTree
from tvix_store.config import verified
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree, stream
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.trees import TreeFile


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of_long_lists(tmp_path / "store") as store:
        yield store


def pack_of(engine: Engine, place: Place) -> Path:
    return engine.directory / f"packs/{place.pack:08x}.pack"


def harm(engine: Engine, place: Place, at: int = 0) -> None:
    """Flip bits of what lies `at` bytes behind the begin of a payload."""
    with pack_of(engine, place).open("r+b") as pack:
        pack.seek(place.offset + at)
        there = pack.read(2)
        pack.seek(place.offset + at)
        pack.write(bytes(each ^ 0x55 for each in there))


def chunk_places(engine: Engine, blob: Digest) -> list[Place]:
    """Where the chunks of a blob lie, live or condemned, without taking them back."""
    keys = list(LocalBlobs(engine).chunk_keys(blob))
    engine.index.wanted_back.clear()
    with engine.index.reading() as txn:
        found = [
            engine.index.place_in(txn, Kind.CHUNK, key) or engine.index.place_in(txn, Kind.CHUNK, key, condemned=True)
            for key in keys
        ]
    return [place for place in found if place is not None]


async def test_what_lies_behind_a_damaged_header_is_copied(tmp_path: Path) -> None:
    """Nobody reads a header to get content. A scan of the pack passes it over."""
    async with await open_store(tmp_path / "store") as store:
        kept = await put_path(store, "kept", {b"a": noise(50_000, "a"), b"b": noise(60_000, "b")})
        gone = await put_path(store, "gone", {b"c": noise(900_000, "c")})
        await remove(store, gone)
        engine = engine_of(store)
        [place] = chunk_places(engine, digest_of(await store.directories.get(root_of(kept)), b"a"))
        harm(engine, place, -20)
        assert (await collect_garbage(store)).freed > 900_000
    async with await open_store(tmp_path / "store") as store:
        assert await is_whole(store, kept)


async def test_the_space_of_a_removed_pack_comes_back_while_the_store_is_open(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put_path(store, "kept", TREE)
        gone = await put_path(store, "gone", {b"c": noise(900_000, "c")})
        assert await is_whole(store, gone)
        await remove(store, gone)
        assert (await collect_garbage(store)).freed > 900_000
        await store.blobs.put_many([b"something"])
        assert not [each for each in open_files() if each.startswith(str(tmp_path)) and each.endswith(".pack (deleted)")]


def open_files() -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the list itself
            found.append(os.readlink(f"/proc/self/fd/{each}"))
    return found


async def condemned_content(store: Store) -> bytes:
    """What a blob has that is condemned, with its chunks and its chunk list."""
    content = noise(60_000, "gone")
    gone = await put_path(store, "gone", {b"file": content})
    await remove(store, gone)
    await collect_garbage(store, GRACE)
    return content


async def test_of_a_condemned_blob_with_a_damaged_chunk_nothing_is_said_to_be_there(store: Store) -> None:
    engine, content = engine_of(store), await condemned_content(store)
    blob = Digest.of(content)
    harm(engine, chunk_places(engine, blob)[3], 5)
    with pytest.raises(CorruptError):
        await collect(store.blobs.read(blob))
    await store.sync()
    assert RawContent(engine).lists_without_chunks() == []
    assert await store.blobs.missing([blob]) == {blob}
    assert await store.blobs.stat(blob) is None
    await verified(store).blobs.put(stream([content]))
    assert await collect(store.blobs.read(blob)) == content


async def test_a_condemned_list_that_cannot_be_read_is_missing(store: Store) -> None:
    engine, content = engine_of(store), await condemned_content(store)
    blob = Digest.of(content)
    with engine.index.reading() as txn:
        harm(engine, engine.index.chunk_list(txn, blob.raw, condemned=True)[2].place, 20)
    assert await store.blobs.missing([blob]) == {blob}
    assert await store.blobs.stat(blob) is None
    await store.blobs.put(stream([content]))
    assert await store.blobs.missing([blob]) == set()
    assert await collect(store.blobs.read(blob)) == content


async def test_condemned_content_of_a_lost_pack_is_missing(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await put_path(store, "kept", TREE)
        lost = set(packs(directory))
    async with await open_store(directory, pack_size=None) as store:
        engine = engine_of(store)
        [writer] = [engine.spare_packs.take()]
        writer.next_pack()  # the first pack is not written to meanwhile
        gone = await put_path(store, "gone", {b"file": noise(50_000, "gone"), b"other": b"other"})
        await remove(store, gone)
        await collect_garbage(store, GRACE)
        places = chunk_places(engine, Digest.of(b"other")) + chunk_places(engine, Digest.of(noise(50_000, "gone")))
        assert not lost & {f"{place.pack:08x}.pack" for place in places}
        for place in places:
            pack_of(engine, place).unlink(missing_ok=True)
        blobs = [Digest.of(b"other"), Digest.of(noise(50_000, "gone"))]
        assert await store.blobs.missing(blobs) == set(blobs)
        assert [await store.blobs.stat(blob) for blob in blobs] == [None, None]
        writer.close()


def unreadable(monkeypatch: pytest.MonkeyPatch, places: Sequence[Place], begin: Callable[[], bool] = lambda: True) -> None:
    """From now on, the disk does not give records at these places."""
    read = PackReader.read_checked

    def refuse(reader: PackReader, place: Place) -> bytes:
        if place in places and begin():
            raise UnavailableError("no descriptors are left")
        return read(reader, place)

    monkeypatch.setattr(PackReader, "read_checked", refuse)


async def test_a_needed_list_that_is_not_rescued_is_not_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {b"file": noise(60_000, "back")}
    info = await put_path(store, "back", files)
    await remove(store, info)
    await collect_garbage(store, GRACE)
    engine = engine_of(store)
    with engine.index.reading() as txn:
        places = [each.place for each in engine.index.contents(txn, Kind.CHUNK_LIST, condemned=True)]
    await store.path_infos.put(info)  # as one that was put before the publication
    is_marked = False
    add_chunks = Mark.add_chunks

    def marks(mark: Mark) -> None:
        nonlocal is_marked
        add_chunks(mark)
        is_marked = True

    with monkeypatch.context() as patch:
        patch.setattr(Mark, "add_chunks", marks)
        unreadable(patch, places, lambda: is_marked)
        with pytest.raises(UnavailableError, match="nothing is deleted"):
            await collect_garbage(store)
    assert await is_whole(store, info)
    await collect_garbage(store)
    await collect_garbage(store)
    assert await is_whole(store, info)


async def test_facts_are_not_kept_of_what_is_not_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    content = noise(60_000, "gone")
    gone = await put_path(store, "gone", {b"file": content})
    await remove(store, gone)
    await collect_garbage(store, GRACE)
    engine = engine_of(store)
    with engine.index.reading() as txn:
        places = [each.place for each in engine.index.contents(txn, Kind.CHUNK_LIST, condemned=True)]
    assert store.known_nars is not None
    is_read = False

    def reads() -> bool:
        return is_read

    with monkeypatch.context() as patch:
        unreadable(patch, places, reads)
        since = store.known_nars.begin()
        list(LocalBlobs(engine).chunk_keys(Digest.of(content)))  # found
        is_read = True
        await store.blobs.put_many([b"anything: it takes back what was found"])
        assert await store.blobs.missing([Digest.of(content)]) == {Digest.of(content)}
        await store.known_nars.put(gone.node, gone.nar, since)
        assert await store.known_nars.get(gone.node) is None


async def test_what_is_taken_back_during_the_count_is_not_said_to_be_missing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    info = await put_path(store, "back", {b"file": noise(60_000, "back")})
    await remove(store, info)
    await collect_garbage(store, GRACE)
    await store.path_infos.put(info)  # as one that was put before the publication
    all_keys = ContentIndex.all_keys

    async def take_back() -> None:
        await store.nar.calculate(info.node)

    def taking_back(index: ContentIndex, kind: Kind, *, condemned: bool = False) -> Iterator[bytes]:
        yield from all_keys(index, kind, condemned=condemned)
        if not condemned and kind is Kind.CHUNK:
            asyncio.run_coroutine_threadsafe(take_back(), loop).result()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(ContentIndex, "all_keys", taking_back)
    await collect_garbage(store)
    assert await is_whole(store, info)


async def test_a_refused_list_leaves_no_facts(store: Store) -> None:
    """A chunk that was known when a little stage looked is gone when it is accepted."""
    engine = engine_of(store)
    content = noise(60_000, "staged")
    node = await put_tree(store, {b"file": TreeFile(content)})
    facts = await store.nar.calculate(node)
    assert store.known_nars is not None
    since = store.known_nars.begin()

    with engine.index.writing() as txn:
        engine.index.drop_nar_facts(txn)
        commit = Commit(engine.index, txn, engine.reader, refused={Digest.of(content).raw})
        part = Content(Kind.CHUNK_LIST, chunk_lists.chunk_list_key(Digest.of(content).raw, 0), b"")
        assert isinstance(PutTree([part], NarOfNode(node_key(node), facts, since), {}).apply(commit), UnavailableError)
    assert await store.known_nars.get(node) is None


async def test_paths_that_a_damaged_index_hides_keep_what_they_need(store: Store) -> None:
    """Also those of a named cache. Nothing tells of a row that a page of LMDB does not count."""
    engine = engine_of(store)
    cache_of = engine.directory / "caches" / "cache"
    async with await open_store(cache_of) as cache:
        for number in range(10):
            node = await put_tree(store, {b"file": TreeFile(noise(3000, f"cached {number}"))})
            await cache.path_infos.put(PathInfo(path(f"cached-{number}"), node, await store.nar.calculate(node)))
    hide_the_last_row(index_file(cache_of), b"path_infos")
    with pytest.raises(CorruptError, match="rows of path_infos are hidden"):
        await collect_garbage(store)


def hide_the_last_row(file: Path, table: bytes) -> None:
    """Let the page of a table, which must have one alone, count a row less: 2 bytes at 12 say where the offsets of rows end."""
    with lmdb.open(str(file), subdir=False, max_dbs=20, readonly=True, lock=False) as env, env.begin() as txn:
        row = txn.get(table)
        assert row is not None
        root = int.from_bytes(row[-8:], "little")
        page = txn.stat(env.open_db(table, txn))["psize"]
    with file.open("r+b") as pages:
        pages.seek(root * page + 12)
        lower = int.from_bytes(pages.read(2), "little")
        pages.seek(root * page + 12)
        pages.write((lower - 2).to_bytes(2, "little"))

"""Content that moves to another pack while it is read is read there, and is no damage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.test_checkpoint import drop_chunk, engine_of, put_cut
from tvix_store.backends.local import open_store
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_path
from tvix_store.backends.local.records import CONTENTS, KEY_SIZE, NewRecord
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

SMALL, TEXT, CUT = noise(2_000, "small"), b"a text that compresses well, " * 100, noise(100_000, "cut")
FOLDER = Directory({b"folder": Directory({}).node()})


@asynccontextmanager
async def store_of_all_kinds(directory: Path) -> AsyncIterator[Store]:
    """A store with chunks, directories and a chunk list."""
    async with await open_store(directory, chunk_average=4096) as store:
        await store.blobs.put_many([SMALL, TEXT])
        await store.directories.put(stream([Directory({}), FOLDER]))
        await put_cut(store, CUT)
        await store.sync()
        yield store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of_all_kinds(tmp_path / "store") as store:
        yield store


def rewrite(store: Store) -> None:
    """Write all content to another pack, as a collection would, and destroy the old one."""
    engine = engine_of(store)
    index, writer = engine.index, engine.spare_packs.take()
    writer.next_pack()
    old = set()
    with index.writing() as txn:
        for kind in CONTENTS:
            for each in list(index.contents(txn, kind)):
                old.add(each.place.pack)
                with pack_path(engine.directory / "packs", each.place.pack).open("rb") as pack:
                    pack.seek(each.place.offset)
                    stored = pack.read(each.place.stored)
                [place] = writer.append([NewRecord(kind, each.key[:KEY_SIZE], stored, each.place.length)])
                move(index, txn, each._replace(place=place))
        writer.keep()
        index.put_pack_sizes(txn, writer.number, writer.size, 0)
    for number in old:
        path = pack_path(engine.directory / "packs", number)
        with path.open("r+b") as pack:
            pack.seek(PREFIX_SIZE)
            pack.write(bytes(path.stat().st_size - PREFIX_SIZE))


def move(index: Index, txn: Any, each: Written) -> None:
    row = each.place.to_bytes()
    index._put(txn, index._table_of[each.kind], each.key, each.blob_size.to_bytes(8, "little") + row if each.blob_size else row)


async def read_frames(store: Store) -> object:
    assert store.frames is not None
    run = b"".join(frame.digest for frame in (await store.frames.find([Digest.of(SMALL)]))[0])

    def check(runs: list[list[memoryview]]) -> list[bytes]:
        found = [bytes(each) for each in runs[0]]
        if found != [SMALL]:
            raise CorruptError("the frame is damaged")
        return found

    return await store.frames.read([run], check)


READS: dict[str, tuple[Callable[[Store], Awaitable[object]], object]] = {
    "a blob": (lambda store: collect(store.blobs.read(Digest.of(SMALL))), SMALL),
    "a compressed one": (lambda store: collect(store.blobs.read(Digest.of(TEXT))), TEXT),
    "blobs": (lambda store: store.blobs.get_many([Digest.of(SMALL), Digest.of(TEXT)]), [SMALL, TEXT]),
    "a cut blob": (lambda store: collect(store.blobs.read(Digest.of(CUT))), CUT),
    "its list": (lambda store: put_cut(store, CUT), None),
    "a directory": (lambda store: store.directories.get(FOLDER.digest), FOLDER),
    "frames": (read_frames, [SMALL]),
}


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize("what", READS)
async def test_what_moves_between_its_lookup_and_its_reading_is_read_where_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str, is_cached: bool
) -> None:
    read, expected = READS[what]
    keys = await put_cut(store, CUT)
    moved: list[str] = []
    forgotten: list[object] = []
    monkeypatch.setattr(Engine, "forget_damaged", lambda *suspect: forgotten.append(suspect))

    def moving(real: Callable[..., Any]) -> Callable[..., Any]:
        def move_and_read(reader: PackReader, argument: Any) -> Any:
            if not moved:
                moved.append("now")
                rewrite(store)
            return real(reader, argument)

        return move_and_read

    for name in ("read", "read_checked", "read_many", *(["read_if_cached"] if is_cached else [])):
        monkeypatch.setattr(PackReader, name, moving(getattr(PackReader, name)))
    if not is_cached:
        monkeypatch.setattr(PackReader, "read_if_cached", lambda *_: None)
    assert await read(store) == (expected or keys)
    assert moved
    assert not forgotten


async def test_frames_of_a_list_that_names_a_missing_chunk_let_it_be_forgotten(store: Store) -> None:
    chunk = (await put_cut(store, CUT))[3]
    drop_chunk(store, chunk)
    assert store.frames is not None
    with pytest.raises(CorruptError, match="missing"):
        await store.frames.find([Digest.of(CUT)])
    await store.sync()
    assert await store.blobs.missing([Digest.of(CUT)]) == {Digest.of(CUT)}


async def test_what_is_damaged_at_each_of_its_places_is_damage(store: Store) -> None:
    engine = engine_of(store)
    key = Digest.of(SMALL).raw
    first = engine.index.chunk(key)
    assert first is not None
    rewrite(store)
    second = engine.index.chunk(key)
    assert second is not None
    with pack_path(engine.directory / "packs", second.pack).open("r+b") as pack:
        pack.seek(second.offset)
        pack.write(bytes(100))
    with pytest.raises(CorruptError, match="is damaged"):
        engine.payload(key, first)
    await store.sync()
    assert await store.blobs.missing([Digest.of(SMALL)]) == {Digest.of(SMALL)}

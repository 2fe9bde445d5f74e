"""No pack is removed that holds the only copy of anything, whatever happens beside its rewriting."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage, digest_of, is_whole, put_path, remove, root_of
from tvix_store.backends.local import committer, open_store, snapshot
from tvix_store.backends.local.collection import rewriting
from tvix_store.backends.local.collection.rewriting import Rewriting
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.file_lock import alone
from tvix_store.backends.local.packs import Place, pack_path
from tvix_store.backends.local.records import HEADER_SIZE, Kind
from tvix_store.backends.local.requests import LeavePack
from tvix_store.errors import CorruptError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import noise


async def put_with_garbage(store: Store, name: str = "kept", size: int = 30_000) -> PathInfo:
    """A path in a pack that is worth to be rewritten."""
    kept = await put_path(store, name, {b"file": noise(size, name)})
    await remove(store, await put_path(store, f"not-{name}", {b"file": noise(500_000, f"not {name}")}))
    return kept


async def file_of(store: Store, info: PathInfo) -> tuple[bytes, Place]:
    """The digest of the only file of a path, and where it lies."""
    digest = digest_of(await store.directories.get(root_of(info)), b"file").raw
    place = engine_of(store).index.chunk(digest)
    assert place is not None
    return digest, place


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


async def test_a_pack_is_rewritten_up_to_where_it_ends_when_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer goes on after the sizes of all packs were looked at, and gives it up then."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept = await put_with_garbage(store)
    async with await open_store(directory) as store, await open_store(tmp_path / "other") as other:
        late = await put_path(other, "late", {b"file": noise(40_000, "late")})
        source, target, lock = engine_of(other), engine_of(store), rewriting._lock
        late_contents = [
            Content(kind, each.key, source.payload(each.key, each.place))
            for kind in (Kind.CHUNK, Kind.DIRECTORY)
            for each in source.index.all_contents(kind)
        ]

        def write_first(stack: ExitStack, path: Path) -> bool:
            target.committer.put_contents(late_contents).result()
            target.committer.submit(LeavePack()).result()
            return lock(stack, path)

        monkeypatch.setattr(rewriting, "_lock", write_first)
        assert (await collect_garbage(store)).freed > 0
        assert await is_whole(store, late)
        assert await is_whole(store, kept)


async def test_a_pack_with_an_entry_that_is_not_found_stays(tmp_path: Path) -> None:
    """The head of an entry is damaged. Its content can still be read where the index says."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept = await put_with_garbage(store)
        _, place = await file_of(store, kept)
    flip(pack_path(directory / "packs", place.pack), place.offset - HEADER_SIZE + 20)
    async with await open_store(directory) as store:
        assert (await collect_garbage(store)).dropped.count > 0
    async with await open_store(directory) as store:
        assert await is_whole(store, kept)


@pytest.mark.parametrize("is_known", [True, False])
async def test_nothing_is_rewritten_by_a_damaged_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool) -> None:
    """A row fails its check. The index is made anew from the packs, in which all is whole."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept = await put_with_garbage(store)
        with monkeypatch.context() as patched:  # a run that dies before it rewrites
            patched.setattr(Rewriting, "run", lambda _: 0)
            await collect_garbage(store)
            await remove(store, await put_path(store, "waits", {b"file": b"waits"}))
            await collect_garbage(store, GRACE)
        digest, _ = await file_of(store, kept)
        index = engine_of(store).index
        with index.writing() as txn:
            row = bytearray(txn.get(digest, db=index.chunks.handle) or b"")
            row[3] ^= 1
            txn.put(digest, bytes(row), db=index.chunks.handle)
        if is_known:
            assert index.chunk(digest) is None
            assert (await collect_garbage(store, GRACE)).freed == 0
        else:
            with pytest.raises(CorruptError, match="the index is damaged"):
                await collect_garbage(store, GRACE)
    async with await open_store(directory) as store:
        assert await is_whole(store, kept)


async def test_nothing_is_rewritten_while_packs_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come back, and what is left of them, and of their chunk lists, then counts again."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept = await put_with_garbage(store)
        await collect_garbage(store)
        await remove(store, await put_path(store, "gone", {b"file": noise(500_000, "gone")}))
        late = await put_path(store, "late", {b"file": noise(40_000, "late")})
        with monkeypatch.context() as patched:  # a run that dies before it rewrites
            patched.setattr(Rewriting, "run", lambda _: 0)
            await collect_garbage(store)
        _, place = await file_of(store, late)
    path = pack_path(directory / "packs", place.pack)
    whole = path.read_bytes()
    os.truncate(path, place.offset + 10)
    async with await open_store(directory) as store:
        with pytest.raises(CorruptError):
            await collect_garbage(store)
        assert Rewriting(engine_of(store), Watch()).run() == 0
        assert path.exists()
        path.write_bytes(whole)
    async with await open_store(directory) as store:
        assert await is_whole(store, late)
        assert await is_whole(store, kept)


@pytest.mark.parametrize("keeps_up", [True, False])
async def test_who_only_reads_finds_what_lies_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_up: bool) -> None:
    """It follows the packs by itself, and may have seen the copies before the packs are gone, or not."""
    directory = tmp_path / "store"
    monkeypatch.setattr(snapshot, "_LOOK_EVERY", 3600)
    async with await open_store(directory, pack_size=1 << 20) as store:
        kept = [await put_with_garbage(store, f"{number}", 700_000) for number in range(3)]
        async with await open_store(directory, read_only=True) as reader:
            engine = reader.blobs._inner._engine  # type: ignore[attr-defined]
            follower, end = engine._opened, Rewriting._remove
            assert isinstance(follower, snapshot.Snapshot)
            assert all([await is_whole(reader, info) for info in kept])

            def remove_pack(run: Rewriting, number: int) -> None:
                if keeps_up:
                    follower.catch_up()
                end(run, number)

            monkeypatch.setattr(Rewriting, "_remove", remove_pack)
            assert (await collect_garbage(store)).freed > 0
            await engine.without_losses()
            assert all([await is_whole(reader, info) for info in kept])


async def test_who_has_nothing_to_write_gives_its_packs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that others can rewrite them, also while a daemon runs for months."""
    monkeypatch.setattr(committer, "_IDLE", 0.1)
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await store.blobs.put_many([b"something"])
        pack = directory / "packs/00000001.pack"
        with alone(pack) as is_alone:
            assert not is_alone
        await asyncio.sleep(1)
        with alone(pack) as is_alone:
            assert is_alone
        await store.blobs.put_many([b"something else"])
        assert len(list((directory / "packs").iterdir())) == 1, "it goes on with the same one"

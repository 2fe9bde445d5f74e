"""The view of a bucket on this machine: a cache, which may go at any time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.store import LocalStore

from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import memory_bucket, open_packed
from tvix_store.backends.objectstore.packed import refresher, view_environment
from tvix_store.backends.objectstore.packed import view as view_module
from tvix_store.backends.objectstore.packed.contents import Content, Kind, Place
from tvix_store.backends.objectstore.packed.pack import Footer, PackPart, commit_key
from tvix_store.backends.objectstore.packed.view import Commit, Record, View
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

BLOBS = [noise(1000, f"{number}") for number in range(50)]


def digests() -> list[Digest]:
    return list(map(Digest.of, BLOBS))


def one_lock(views: Path) -> Path:
    [lock] = views.rglob("refresh.lock")
    return lock


def files(views: Path) -> list[Path]:
    return [*views.rglob("view.mdb"), *views.rglob("view.mdb-lock")]


def remove_files(views: Path) -> None:
    for file in files(views):
        file.unlink()


def overwrite(views: Path) -> None:
    for file in files(views):
        file.write_bytes(noise(file.stat().st_size, "nonsense"))


def empty(views: Path) -> None:
    for file in files(views):
        file.write_bytes(b"")


async def answers(store: Store) -> None:
    assert not await store.blobs.missing(digests())
    assert await store.blobs.get_many(digests()) == BLOBS


@pytest.mark.parametrize("harm", [shutil.rmtree, remove_files, overwrite, empty])
async def test_a_view_that_is_gone_or_damaged_is_made_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    bucket = CountedBucket()
    views = tmp_path / "views"
    async with await open_packed(bucket, views) as store:
        await store.blobs.put_many(BLOBS)
    harm(views)
    async with await open_packed(bucket, views) as store:
        await answers(store)


@pytest.mark.parametrize("harm", [shutil.rmtree, remove_files])
async def test_a_view_may_be_deleted_at_work(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    bucket = CountedBucket()
    views = tmp_path / "views"
    async with await open_packed(bucket, views) as store:
        await store.blobs.put_many(BLOBS[:25])
        harm(views)
        await store.blobs.put_many(BLOBS[25:])
        await answers(store)
        assert await store.blobs.missing([Digest.of(b"x")])
    async with await open_packed(bucket, views) as store:
        await answers(store)


async def test_a_flipped_bit_makes_a_new_view(tmp_path: Path) -> None:
    """A row that says that content is here must not come from a flip: a writer would not store it."""
    bucket = CountedBucket()
    views = tmp_path / "views"
    async with await open_packed(bucket, views) as store:
        await store.blobs.put_many(BLOBS)
    [file] = views.rglob("view.mdb")
    data = bytearray(file.read_bytes())
    at = data.find(Digest.of(BLOBS[7]).raw)
    data[at + 34] ^= 4  # in the place of this blob
    file.write_bytes(data)
    async with await open_packed(bucket, views) as store:
        await answers(store)


async def test_after_a_start_of_the_machine_a_view_counts_only_if_it_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = CountedBucket()
    views = tmp_path / "views"
    async with await open_packed(bucket, views) as store:
        await store.blobs.put_many(BLOBS)
    set_boot_id(monkeypatch, b"another")
    bucket.forget()
    async with await open_packed(bucket, views) as store:
        await answers(store)
    assert bucket.counts == {"commits": 1}  # no footer was read: it was closed in order
    [synced] = views.rglob("synced")
    synced.unlink()
    set_boot_id(monkeypatch, b"a third")
    bucket.forget()
    async with await open_packed(bucket, views) as store:
        await answers(store)
    assert bucket.counts == {"list commits": 1, "commits": 2}


def set_boot_id(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    for module in (view_module, view_environment):
        monkeypatch.setattr(module, "boot_id", lambda: name.ljust(36))


async def test_a_view_of_another_bucket_is_not_taken(tmp_path: Path) -> None:
    view = View.acquire(tmp_path, b"one")
    view.add([commit_of(b"content")])
    view.release()
    other = View.acquire(tmp_path, b"two")
    assert other.places(Kind.CHUNK, [Digest.of(b"content").raw]) == [None]
    other.release()


async def test_a_view_in_a_place_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Exception, match="no view can be made in") as caught:
        View.acquire(tmp_path / "file" / "view", b"one")
    assert "Traceback" not in str(caught.value)


def commit_of(*contents: bytes, time: int = 1) -> Commit:
    part = PackPart("")
    for content in contents:
        part.add(Content(Kind.CHUNK, Digest.of(content).raw, content, len(content)))
    return Commit(commit_key(time, 100), Footer([part]))


async def test_the_newest_place_counts(tmp_path: Path) -> None:
    old, new = commit_of(b"x", b"content"), commit_of(b"content", time=2)
    view = View.acquire(tmp_path, b"one")
    view.add([new, old])
    place = Place(new.key, 0, 7, 7)
    assert view.places(Kind.CHUNK, [Digest.of(b"content").raw]) == [place]
    assert view.newest == new.key
    view.forget([Record(Kind.CHUNK, Digest.of(b"content").raw, 0, Place(old.key, 1, 7, 7))])  # it lies elsewhere by now
    assert view.places(Kind.CHUNK, [Digest.of(b"content").raw]) == [place]
    view.forget([Record(Kind.CHUNK, Digest.of(b"content").raw, 0, place)])
    assert view.places(Kind.CHUNK, [Digest.of(b"content").raw]) == [None]
    view.release()


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from obstore.store import LocalStore
from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import memory_bucket, open_packed
from tests.backends.objectstore.packed.test_view import BLOBS, digests

async def main() -> None:
    bucket = CountedBucket(LocalStore(sys.argv[1]))
    async with await open_packed(bucket, Path(sys.argv[2])) as store:
        assert await store.blobs.get_many(digests()[:25]) == BLOBS[:25]
        assert bucket.counts == {"commits": 1}, bucket.counts  # the footer stands in the view that is shared
        await store.blobs.put_many(BLOBS[25:])

asyncio.run(main())
"""


async def test_processes_share_a_view(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    bucket = CountedBucket(LocalStore(tmp_path / "bucket"))
    async with await open_packed(bucket, tmp_path / "views") as store:
        await store.blobs.put_many(BLOBS[:25])
        command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "bucket"), str(tmp_path / "views")]
        ended = await asyncio.to_thread(subprocess.run, command, env={**os.environ, "PYTHONPATH": "."}, check=False)
        assert ended.returncode == 0
        assert not list((tmp_path / "views").rglob("synced"))  # this process goes on to write
        bucket.forget()
        await answers(store)
        assert "list commits" not in bucket.counts
    async with await open_packed(bucket, tmp_path / "views") as store:
        assert isinstance(store, Store)
        bucket.fault = lambda number, key: "before"
        with pytest.raises(UnavailableError):
            await store.blobs.get_many([Digest.of(b"unknown")])


async def test_a_process_that_was_stopped_at_a_refresh_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher, "_TURN", 0.1)
    bucket = memory_bucket()
    async with await open_packed(bucket, tmp_path / "one") as one:
        await one.blobs.put(stream([b"one"]))
    async with await open_packed(bucket, tmp_path / "two") as two:
        assert await two.blobs.missing([Digest.of(b"two")])
        with one_lock(tmp_path / "two").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            async with asyncio.timeout(10):
                assert await collect(two.blobs.read(Digest.of(b"one"))) == b"one"
                await two.blobs.put(stream([b"two"]))

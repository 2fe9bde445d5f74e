"""The scrub of contents: it reads everything once a period, and lets be forgotten what is damaged, and nothing else."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.backends.local import writer_process
from tests.backends.local.test_checkpoint import engine_of, flip
from tests.backends.local.test_moved_content import CUT, FOLDER, SMALL, TEXT, rewrite, store_of_all_kinds
from tvix_store.backends.local import open_store, scrub_order
from tvix_store.backends.local.content_scrub import ContentScrub
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.disk_reader import DiskReader
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.packs import Place, pack_path
from tvix_store.backends.local.records import CONTENTS, HEADER_SIZE, Kind
from tvix_store.backends.local.scrub_order import Position, next_stretch
from tvix_store.backends.local.scrub_round import FILE, ScrubRound
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.telemetry import meters
from tvix_store.testing.content import noise

PERIOD = 30 * 86_400.0
BEGIN = 1_700_000_000.0
CHUNK, LIST = Digest.of(SMALL).raw, Digest.of(CUT).raw + bytes(8)


class Time:
    """A clock that goes on by waiting, and what each content was read at. It ends a scrub after some seconds."""

    def __init__(self, seconds: float, begin: float = BEGIN) -> None:
        self.now = begin
        self.end = begin + seconds
        self.ended = threading.Event()
        self.meanwhile: Callable[[], object] = lambda: None

    def wait(self, seconds: float) -> bool:
        self.meanwhile()
        self.now += seconds
        if self.now < self.end:
            return False
        self.ended.set()
        return True

    def clock(self) -> float:
        return self.now


class Reads:
    """The contents that scrubs have looked at, with the time of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[bytes] = []
        self.times: list[float] = []
        self.time = Time(0)
        check = ContentScrub._check

        def noted(scrub: ContentScrub, kind: Kind, key: bytes) -> None:
            check(scrub, kind, key)
            self.keys.append(key)
            self.times.append(self.time.now)

        monkeypatch.setattr(ContentScrub, "_check", noted)

    def scrub(self, store: Store, seconds: float = PERIOD) -> None:
        """Let a scrub of a month go on for so many seconds, or nearly to the end of a round."""
        self.time = Time(seconds, self.time.now or BEGIN)
        scrub(store, self.time)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of_all_kinds(tmp_path / "store") as store:
        yield store


def scrub(store: Store, time: Time | None = None) -> None:
    """All but the end of a round, unless a time is given."""
    time = time or Time(PERIOD)
    running = ContentScrub(engine_of(store), PERIOD, time.clock, time.wait)
    assert time.ended.wait(60)
    running.close()


def faults() -> tuple[float, float]:
    """How many contents were found damaged, and how many unreadable."""
    return meters.SCRUB_DAMAGED.of().value, meters.SCRUB_UNREADABLE.of().value


def contents(engine: Engine) -> list[Written]:
    """All of them, in the order of the packs."""
    with engine.index.reading() as txn:
        found = [each for kind in CONTENTS for each in engine.index.contents(txn, kind)]
    return sorted(found, key=lambda each: (each.place.pack, each.place.offset))


def place_of(store: Store, kind: Kind, key: bytes) -> Place:
    place = engine_of(store).index.live_place(kind, key)
    assert place is not None
    return place


@pytest.mark.parametrize(
    ("kind", "key"),
    [(Kind.CHUNK, CHUNK), (Kind.CHUNK, Digest.of(TEXT).raw), (Kind.DIRECTORY, FOLDER.digest.raw), (Kind.CHUNK_LIST, LIST)],
    ids=["a chunk", "a compressed chunk", "a directory", "a chunk list"],
)
async def test_a_flipped_bit_is_found_in_one_round_and_forgotten(store: Store, kind: Kind, key: bytes) -> None:
    engine, before = engine_of(store), faults()
    all_keys = {each.key for each in contents(engine)}
    flip(engine.directory, place_of(store, kind, key))
    scrub(store)
    await store.sync()
    assert faults() == (before[0] + 1, before[1])
    assert all_keys - {each.key for each in contents(engine)} == {key}


async def test_what_is_damaged_with_its_header_is_found_too(store: Store) -> None:
    engine, place = engine_of(store), place_of(store, Kind.CHUNK, CHUNK)
    with pack_path(engine.directory / "packs", place.pack).open("r+b") as pack:
        pack.seek(place.offset - HEADER_SIZE)
        pack.write(bytes(HEADER_SIZE + place.stored))
    scrub(store)
    await store.sync()
    assert await store.blobs.missing([Digest.of(SMALL), Digest.of(TEXT)]) == {Digest.of(SMALL)}
    await store.blobs.put_many([SMALL])
    assert await store.blobs.get_many([Digest.of(SMALL)]) == [SMALL]


async def test_each_content_of_a_whole_store_is_read_once_in_a_round(store: Store, reads: Reads) -> None:
    engine, before, bytes_before = engine_of(store), faults(), meters.SCRUB_BYTES.of().value
    reads.scrub(store)
    assert reads.keys == [each.key for each in contents(engine)]
    assert faults() == before
    assert meters.SCRUB_BYTES.of().value - bytes_before == sum(each.place.stored for each in contents(engine))
    reads.scrub(store)
    assert reads.keys[len(contents(engine)) :] == [each.key for each in contents(engine)]
    done = ScrubRound.read(engine.directory)
    assert done is not None
    assert BEGIN + 2 * PERIOD > done.ended == done.begun >= BEGIN + PERIOD


async def test_each_round_reads_from_the_disk(store: Store, reads: Reads) -> None:
    engine, before, place = engine_of(store), faults(), place_of(store, Kind.CHUNK, CHUNK)
    count = len(contents(engine))
    reads.time = Time(2 * PERIOD)

    def harm() -> None:
        if len(reads.keys) == count:
            reads.time.meanwhile = lambda: None
            flip(engine.directory, place)

    reads.time.meanwhile = harm
    scrub(store, reads.time)
    assert faults() == (before[0] + 1, before[1])


async def test_what_moves_and_what_is_put_meanwhile_is_no_damage(store: Store, reads: Reads) -> None:
    engine, before = engine_of(store), faults()
    kept = len(contents(engine))
    reads.time = Time(PERIOD)

    def move() -> None:
        if len(reads.keys) == 3:  # of the packs that are destroyed, some neighbours were read ahead
            reads.time.meanwhile = lambda: None
            rewrite(store)

    reads.time.meanwhile = move
    scrub(store, reads.time)
    await store.sync()
    assert faults() == before
    assert len(contents(engine)) == kept
    assert set(reads.keys) == {each.key for each in contents(engine)}


async def test_what_moves_between_its_lookup_and_its_reading_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, before = engine_of(store), faults()
    kept, real = len(contents(engine)), DiskReader.read
    moved: list[str] = []

    def move_and_read(disk: DiskReader, *where: int) -> bytes:
        if not moved:
            moved.append("now")
            rewrite(store)
        return real(disk, *where)

    monkeypatch.setattr(DiskReader, "read", move_and_read)
    scrub(store)
    await store.sync()
    assert moved
    assert faults() == before
    assert len(contents(engine)) == kept


def cached_pages(file: BinaryIO, size: int) -> int:
    """How many pages of a file are in the page cache. Source: mincore(2); RWF_NOWAIT would begin to read."""
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as view:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        first = ctypes.c_ubyte.from_buffer(view)
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages) == 0
        del first
        return sum(page & 1 for page in pages)


def test_what_is_read_from_the_disk_does_not_stay_in_the_page_cache(tmp_path: Path) -> None:
    with pack_path(tmp_path, 1).open("w+b") as file:
        file.write(noise(100_000))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if cached_pages(file, 100_000):
            pytest.skip("this file system has no disk below it")
        disk = DiskReader(tmp_path)
        assert disk.read(1, 70_000, 100) == noise(100_000)[70_000:70_100]
        assert disk.read(1, 99_000, 1000) == noise(100_000)[99_000:]
        assert disk.read(1, 1, 10) == noise(100_000)[1:11]
        assert cached_pages(file, 100_000) == 0
        with pytest.raises(CorruptError, match="cut short"):
            disk.read(1, 99_001, 1000)
        with pytest.raises(CorruptError, match="missing"):
            disk.read(2, 0, 1)
        assert disk.read(1, 1, 10) == noise(100_000)[1:11]
        disk.let_go()
        assert os.fstat(disk._opened(1)).st_nlink == 1
        Path(file.name).unlink()
        disk.let_go()
        with pytest.raises(CorruptError, match="missing"):
            disk.read(1, 1, 10)
        disk.close()


async def test_beside_a_process_that_writes_nothing_is_damaged(tmp_path: Path) -> None:
    before = faults()
    async with await open_store(tmp_path / "store", pack_size=writer_process.PACK_SIZE) as store:
        writer = await asyncio.create_subprocess_exec(
            sys.executable, writer_process.__file__, tmp_path / "store", "1", stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        try:
            for _ in range(3):
                for _ in range(100):
                    await writer.stdout.readline()
                bytes_before = meters.SCRUB_BYTES.of().value
                scrub(store)
                assert meters.SCRUB_BYTES.of().value > bytes_before
        finally:
            writer.kill()
            await writer.communicate()
        scrub(store)
        await store.sync()
    assert faults() == before


async def test_a_round_goes_on_where_another_process_has_left_it(store: Store, reads: Reads) -> None:
    everything = [each.key for each in contents(engine_of(store))]
    reads.scrub(store, PERIOD / 2)
    assert 0 < len(reads.keys) < len(everything)
    reads.scrub(store, PERIOD / 4)
    assert len(reads.keys) < len(everything)
    reads.scrub(store, 0.3 * PERIOD)
    assert reads.keys[: len(everything)] == everything


async def test_a_round_is_spread_over_its_period(tmp_path: Path, reads: Reads) -> None:
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([noise(1000, str(n)) for n in range(500)])
        reads.scrub(store)
        assert len(reads.times) == 500
        for n, when in enumerate(reads.times):
            assert when - BEGIN == pytest.approx(n / 500 * PERIOD, abs=0.02 * PERIOD)


async def test_a_round_that_is_late_hurries_within_bounds(tmp_path: Path, reads: Reads) -> None:
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([noise(1000, str(n)) for n in range(500)])
        reads.scrub(store, 0.1 * PERIOD)
        assert len(reads.keys) == pytest.approx(50, abs=5)
        reads.time.now += 0.8 * PERIOD  # when nobody has the store open
        reads.scrub(store, 0.1 * PERIOD)
        assert len(reads.keys) == pytest.approx(250, abs=10)
        reads.scrub(store, 0.12 * PERIOD)
        assert len(reads.keys) == pytest.approx(490, abs=10)


async def test_a_clock_that_is_set_back_does_not_make_a_round_longer(store: Store, reads: Reads) -> None:
    reads.scrub(store, 0.5 * PERIOD)
    reads.time.now -= 20 * PERIOD
    reads.scrub(store)
    assert reads.keys == [each.key for each in contents(engine_of(store))]


def test_packs_that_come_in_the_period_belong_to_the_round_and_later_ones_do_not() -> None:
    done = ScrubRound(BEGIN, last_pack=3)
    assert done.going_on(PERIOD, BEGIN + PERIOD - 1, 5).last_pack == 5
    assert done.going_on(PERIOD, BEGIN + PERIOD, 5).last_pack == 3


async def test_one_process_at_a_time_scrubs_and_another_follows_it(store: Store, reads: Reads) -> None:
    everything = [each.key for each in contents(engine_of(store))]
    asked, go_on = threading.Event(), threading.Event()
    first, second = Time(PERIOD / 2), Time(PERIOD / 2)

    def hold() -> None:
        if reads.keys:
            asked.set()
            assert go_on.wait(60)

    first.meanwhile = hold
    running = ContentScrub(engine_of(store), PERIOD, first.clock, first.wait)
    assert asked.wait(60)
    read = len(reads.keys)
    other = await open_store(engine_of(store).directory)
    scrub(other, second)
    assert len(reads.keys) == read
    go_on.set()
    assert first.ended.wait(60)
    running.close()
    assert read < len(reads.keys) < len(everything)
    scrub(other, Time(0.55 * PERIOD, first.now))
    assert reads.keys[: len(everything)] == everything
    await other.close()


async def test_what_the_disk_does_not_give_is_told_of_and_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, before, place = engine_of(store), faults(), place_of(store, Kind.CHUNK, CHUNK)
    count = len(contents(engine))
    real = os.pread

    def pread(fd: int, size: int, at: int) -> bytes:
        if at + size <= place.offset or at >= place.offset + place.stored:
            return real(fd, size, at)
        if at >= place.offset:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, place.offset - at, at)

    monkeypatch.setattr(os, "pread", pread)
    scrub(store)
    monkeypatch.undo()
    await store.sync()
    assert faults() == (before[0], before[1] + 1)
    assert len(contents(engine)) == count
    assert "Input/output error" in caplog.text


async def test_a_lost_pack_is_forgotten_as_ever_and_not_content_by_content(store: Store) -> None:
    engine, before = engine_of(store), faults()
    pack = pack_path(engine.directory / "packs", place_of(store, Kind.CHUNK, CHUNK).pack)
    pack.rename(pack.with_suffix(".gone"))
    scrub(store)
    await store.sync()
    assert faults() == before
    assert contents(engine) == []
    assert list(engine.directory.glob("*.lost"))


async def test_a_store_that_is_only_read_is_not_scrubbed(store: Store) -> None:
    directory = engine_of(store).directory
    async with await open_store(directory, read_only=True, scrub_days=0.00001):
        assert "tvix-store-content-scrub" not in {thread.name for thread in threading.enumerate()}
    async with await open_store(directory, scrub_days=0.00001):
        assert "tvix-store-content-scrub" in {thread.name for thread in threading.enumerate()}
    assert "tvix-store-content-scrub" not in {thread.name for thread in threading.enumerate()}


async def test_contents_are_found_in_the_order_of_the_packs_some_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_order, "_MOST", 5)
    monkeypatch.setattr(scrub_order, "_ROWS", 3)
    monkeypatch.setattr(scrub_order, "_REGION_BITS", 13)
    index = engine_of(store).index
    expected = [(each.place.pack, each.place.offset, each.kind, each.key) for each in contents(engine_of(store))]
    sizes = [HEADER_SIZE + each.place.stored for each in contents(engine_of(store))]
    found: list[tuple[int, int, Kind, bytes]] = []
    position = Position(0, 0)
    while True:
        stretch = next_stretch(index, position, 1000, lambda: False)
        assert stretch is not None
        assert (stretch.total, stretch.left) == (sum(sizes), sum(sizes[len(found) :]))
        if stretch.is_empty:
            break
        some = list(stretch.contents())
        assert len(some) <= 5 or len({each.position.region for each in some}) == 1
        found += [(*each.position, each.kind, each.key) for each in some]
        position = Position(*found[-1][:2])
    assert found == expected
    assert next_stretch(index, Position(0, 0), 0, lambda: False) == scrub_order.Stretch(0, 0, {})
    assert next_stretch(index, Position(0, 0), 1000, lambda: True) is None


@pytest.mark.parametrize(
    "damaged", [b"", b"{}", b"\xff", b'{"begun": NaN, "pack": 0, "offset": 0, "last_pack": 0, "ended": 0}', b"[1]"]
)
def test_a_damaged_file_of_the_scrub_lets_a_round_begin(tmp_path: Path, damaged: bytes) -> None:
    done = ScrubRound(BEGIN, 3, 1 << 40, 7, BEGIN - 1.5)
    done.write(tmp_path)
    assert ScrubRound.read(tmp_path) == done
    ScrubRound(BEGIN).write(tmp_path)
    assert ScrubRound.read(tmp_path) == ScrubRound(BEGIN)
    (tmp_path / FILE).write_bytes(damaged)
    assert ScrubRound.read(tmp_path) is None

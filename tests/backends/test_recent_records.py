"""Records in one file of bounded size: the contract of records, and that it forgets the oldest alone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tvix_store.backends.recent_records import RecentRecords
from tvix_store.errors import DeniedError, ExhaustedError, UnavailableError
from tvix_store.services.records import RecordService
from tvix_store.testing.content import noise
from tvix_store.testing.contracts import RecordServiceContract


class TestRecentRecords(RecordServiceContract):
    @pytest.fixture
    async def records(self, tmp_path: Path) -> AsyncIterator[RecordService]:
        records = RecentRecords(tmp_path / "links/x")
        yield records
        await records.close()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[RecentRecords, RecentRecords]]:
    """Two that share a file, as two workers do."""
    both = RecentRecords(tmp_path / "x", 1 << 20), RecentRecords(tmp_path / "x", 1 << 20)
    yield both
    for each in both:
        await each.close()


async def test_what_one_puts_the_other_gets(two: tuple[RecentRecords, RecentRecords]) -> None:
    for number in range(20):
        await two[number % 2].put({b"nar:%d" % number: b"%d" % number})
        assert await two[1 - number % 2].get(b"nar:%d" % number) == b"%d" % number


async def test_both_may_put_at_once(two: tuple[RecentRecords, RecentRecords]) -> None:
    await asyncio.gather(*(each.put({b"nar:%d" % n: b"x"}) for each in two for n in range(100)))
    assert [await two[0].get(b"nar:%d" % n) for n in range(100)] == [b"x"] * 100


async def test_the_oldest_are_forgotten_where_the_file_would_grow(two: tuple[RecentRecords, RecentRecords], tmp_path: Path) -> None:
    values = [noise(1000, str(number)) for number in range(3000)]
    for number, value in enumerate(values):
        await two[number % 2].put({b"nar:%d" % number: value})
    kept = [await two[0].get(b"nar:%d" % number) for number in range(3000)]
    first = next(number for number, value in enumerate(kept) if value is not None)
    assert kept[first:] == values[first:]
    assert 2000 < first < 2600
    assert (tmp_path / "x").stat().st_size <= 1 << 20


async def test_what_is_put_again_is_young_again(two: tuple[RecentRecords, RecentRecords]) -> None:
    for number in range(3000):
        await two[0].put({b"nar:%d" % number: bytes(1000), b"nar:again": b"here"})
    assert await two[1].get(b"nar:again") == b"here"
    assert await two[1].get(b"nar:0") is None


async def test_what_fits_nowhere_is_refused(tmp_path: Path) -> None:
    records = RecentRecords(tmp_path / "x", 64 << 10)
    with pytest.raises(ExhaustedError):
        await records.put({b"nar:%d" % number: noise(10_000) for number in range(10)})
    await records.put({b"nar:small": b"x"})
    assert await records.get(b"nar:small") == b"x"
    await records.close()


def damaged(directory: Path, damage: str) -> None:
    """Damage the file `x`."""
    path = directory / "x"
    match damage:
        case "overwritten":
            path.write_bytes(noise(path.stat().st_size))
        case "cut":
            path.write_bytes(path.read_bytes()[:5000])
        case "removed":
            for each in directory.iterdir():
                each.unlink()


@pytest.mark.parametrize("damage", ["overwritten", "cut", "removed"])
async def test_a_file_that_is_damaged_or_gone_is_begun_anew_by_all(
    two: tuple[RecentRecords, RecentRecords], tmp_path: Path, damage: str
) -> None:
    await two[0].put({b"nar:%d" % number: noise(1000) for number in range(100)})
    assert await two[1].get(b"nar:1") == noise(1000)
    damaged(tmp_path, damage)
    fresh = RecentRecords(tmp_path / "x", 1 << 20)
    for each in (fresh, *two):
        await each.put({b"nar:after": b"x"})
    assert [await each.get(b"nar:after") for each in (fresh, *two)] == [b"x"] * 3
    await two[0].put({b"nar:again": b"y"})
    assert [await each.get(b"nar:again") for each in (fresh, *two)] == [b"y"] * 3
    await fresh.close()


async def test_a_place_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    records = RecentRecords(tmp_path / "file/x")
    with pytest.raises((UnavailableError, DeniedError), match="file"):
        await records.open()
    await records.close()


KILLED = """
import asyncio, os, sys
from pathlib import Path
from tvix_store.backends.recent_records import RecentRecords
async def main():
    await RecentRecords(Path(sys.argv[1])).put({b"nar:a": b"1"}, durable=False)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_what_was_put_survives_a_killed_process(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, tmp_path / "x")
    assert await process.wait() == -9
    records = RecentRecords(tmp_path / "x")
    assert await records.get(b"nar:a") == b"1"
    await records.close()


BUSY = """
import asyncio, os, sys
from pathlib import Path
from tvix_store.backends.recent_records import RecentRecords
async def main():
    records = RecentRecords(Path(sys.argv[1]))
    for number in range(400):
        await records.put({b"nar:%d" % number: os.urandom(500)})
        await records.get(b"nar:1")
    await records.close()
asyncio.run(main())
"""


async def test_no_process_dies_of_damage_that_another_one_mends(tmp_path: Path) -> None:
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", BUSY, tmp_path / "x") for _ in range(3)]
    ending = asyncio.gather(*(process.wait() for process in processes))
    while not ending.done():
        await asyncio.sleep(0.1)
        with suppress(FileNotFoundError):
            os.truncate(tmp_path / "x", (tmp_path / "x").stat().st_size // 2)
    assert ending.result() == [0, 0, 0]

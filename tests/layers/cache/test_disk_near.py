"""DiskNear: bounded, for many processes, and nothing that is found is wrong."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_disk import mounted
from tvix_store.errors import DeniedError, InvalidError
from tvix_store.layers.cache import disk_near, generation
from tvix_store.layers.cache.disk_near import SMALLEST, DiskNear
from tvix_store.testing.content import noise

SLACK = 1 << 20
"""Bytes beyond its size that a cache may take: no more than one put in these tests."""
FILLER = Path(__file__).with_name("filler.py")


def key(number: int) -> bytes:
    return b"c" + blake3(b"%d" % number).digest()


def value(number: int, size: int) -> bytes:
    return noise(size, f"value {number}")


def disk_size(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.rglob("*") if each.is_file())


def generations(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir() if each.is_dir())


@pytest.fixture
def near(tmp_path: Path) -> Iterator[DiskNear]:
    near = DiskNear(tmp_path / "near", SMALLEST)
    yield near
    near.close()


def test_values_come_back_also_after_it_is_opened_anew(near: DiskNear, tmp_path: Path) -> None:
    values = {key(n): value(n, 37 * n) for n in range(100)}
    near.put(values)
    assert near.get([*values, key(1000)]) == [*values.values(), None]
    with suppress(BlockingIOError):  # some file systems cannot tell what is in memory
        assert [near.peek(each) for each in values] == list(values.values())
    near.close()
    assert near.get([key(1)]) == [None]
    again = DiskNear(tmp_path / "near", 4 * SMALLEST)  # another size does no harm
    assert again.get(list(values)) == list(values.values())
    again.close()


def test_the_newer_value_of_a_key_counts(near: DiskNear) -> None:
    near.put({key(1): b"damaged"})
    near.put({key(1): b"mended"})
    assert near.get([key(1)]) == [b"mended"]


def test_kinds_of_one_digest_keep_apart(near: DiskNear) -> None:
    digest = key(1)[1:]
    values = {kind + digest: kind for kind in (b"c", b"l", b"d")}
    near.put(values)
    assert near.get(list(values)) == list(values.values())


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, SLACK // 2)), min_size=40, max_size=80), st.integers(0, 30))
def test_it_keeps_its_size_and_what_is_used(puts: list[tuple[int, int]], used: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        near = DiskNear(Path(directory), SMALLEST)
        kept: dict[int, bytes] = {}
        for number, size in [(used, 1000), *puts]:
            kept[number] = bytes(size) if number != used else b"used"
            near.put({key(number): kept[number]})
            assert near.get([key(number), key(used)]) == [kept[number], b"used"]
            assert disk_size(Path(directory)) <= SMALLEST + SLACK
        for number, content in kept.items():
            assert near.get([key(number)])[0] in (content, None)
        near.close()


def test_what_was_not_used_for_a_generation_goes(near: DiskNear, tmp_path: Path) -> None:
    for number in range(100):
        near.put({key(number): bytes(400_000)})
        near.get([key(0)])
    there = [near.get([key(number)]) != [None] for number in range(100)]
    assert there[0]
    assert not any(there[1:50])
    assert all(there[-19:])
    assert len(generations(tmp_path / "near")) == 2


def test_a_full_page_of_the_table_loses_a_value(near: DiskNear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation.Generation, "_page", lambda self, key: 0)
    values = {key(number): b"%d" % number for number in range(1000)}
    for each, content in values.items():
        near.put({each: content})
    found = near.get(list(values))
    assert all(each in (None, right) for each, right in zip(found, values.values(), strict=True))
    assert 100 <= sum(each is not None for each in found) <= 128


def test_processes_see_what_others_put_and_drop(tmp_path: Path) -> None:
    one, other = (DiskNear(tmp_path / "near", SMALLEST) for _ in range(2))
    one.put({key(0): b"zero"})
    assert other.get([key(0)]) == [b"zero"]
    for number in range(1, 100):
        (one, other)[number % 2].put({key(number): bytes(400_000)})
        assert (other, one)[number % 2].get([key(number)]) == [bytes(400_000)]
        assert disk_size(tmp_path / "near") <= SMALLEST + SLACK
    assert other.get([key(0)]) == one.get([key(0)]) == [None]
    one.close()
    other.close()


def test_a_process_that_sleeps_holds_no_space(tmp_path: Path) -> None:
    sleeping, working = (DiskNear(tmp_path / "near", SMALLEST) for _ in range(2))
    sleeping.put({key(0): b"zero"})
    held = [os.fstat(fd) for fd in (sleeping._generations[0]._data,)]
    for number in range(1, 100):
        working.put({key(number): bytes(400_000)})
    assert [os.fstat(sleeping._generations[0]._data).st_size, held[0].st_size > 0] == [0, True]
    assert sleeping.get([key(0)]) == [None]
    sleeping.close()
    working.close()


def test_damage_anywhere_is_a_value_that_is_not_there_or_other_bytes_of_the_same_length(near: DiskNear, tmp_path: Path) -> None:
    """The reader finds wrong bytes by the digest. Nothing is raised, and new values can be put."""
    values = {key(n): value(n, 500) for n in range(200)}
    near.put(values)
    chosen = random.Random(7)
    for file in (tmp_path / "near").glob("*/*"):
        data = bytearray(file.read_bytes())
        for _ in range(len(data) // 500):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        file.write_bytes(data)
    for found, right in zip(near.get(list(values)), values.values(), strict=True):
        assert found is None or len(found) == len(right)
    near.put(values)
    assert near.get(list(values)) == list(values.values())


@pytest.mark.parametrize("name", [generation.TABLE, generation.DATA])
def test_a_file_that_is_cut_or_gone_is_no_error(near: DiskNear, tmp_path: Path, name: str) -> None:
    near.put({key(1): b"one"})
    os.truncate(next((tmp_path / "near").glob(f"*/{name}")), 0)
    assert near.get([key(1)]) == [None]
    next((tmp_path / "near").glob(f"*/{name}")).unlink()
    again = DiskNear(tmp_path / "near", SMALLEST)
    assert again.get([key(1)]) == [None]
    again.put({key(1): b"one"})
    assert again.get([key(1)]) == [b"one"]
    again.close()


@pytest.mark.parametrize("everything", [False, True])
def test_it_may_be_emptied_while_it_is_open(near: DiskNear, tmp_path: Path, everything: bool) -> None:
    near.put({key(1): b"one"})
    time.sleep(2 * disk_near._TICK)
    if everything:
        shutil.rmtree(tmp_path / "near")
    else:
        for each in (tmp_path / "near").iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    assert near.get([key(1)]) == [None]
    near.put({key(2): b"two"})
    assert near.get([key(2)]) == [b"two"]


def test_another_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"")
    with pytest.raises(InvalidError, match="something else"):
        DiskNear(tmp_path, SMALLEST)
    assert os.listdir(tmp_path) == ["precious"]
    with pytest.raises(InvalidError, match="is a file"):
        DiskNear(tmp_path / "precious", SMALLEST)
    with pytest.raises(InvalidError, match="at least"):
        DiskNear(tmp_path / "small", SMALLEST - 1)
    (tmp_path / "later").mkdir()
    (tmp_path / "later/tvix-store-cache").write_bytes(b"2\n")
    with pytest.raises(InvalidError, match="another version"):
        DiskNear(tmp_path / "later", SMALLEST)


def test_a_disk_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DeniedError, match="Permission denied"):
        DiskNear(tmp_path / "near", SMALLEST)


def test_a_full_disk_serves_what_it_has_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mounted(tmp_path / "small", 12) as small, caplog.at_level(logging.WARNING):
        near = DiskNear(small / "near", 4 * SMALLEST)
        for number in range(100):
            near.put({key(number): bytes(400_000)})
            near._refused_until = 0.0
        there = [near.get([key(number)]) != [None] for number in range(100)]
        assert 20 < sum(there) < 40
        assert [near.get([key(number)])[0] for number in range(20)] == [bytes(400_000)] * 20
        assert [record.message for record in caplog.records] == [
            f"the cache in {small}/near is not filled: No space left on device"
        ]
        near.close()


class Killed(BaseException):
    """Nothing that is done at an end happens, but for the locks, which the kernel frees."""


@pytest.mark.parametrize("step", ["truncate", "unlink", "rmdir", "mkdir", "ftruncate", "rename"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_process_may_be_killed_while_it_begins_a_generation(
    near: DiskNear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: int
) -> None:
    where = os if step in ("truncate", "ftruncate") else Path
    does = getattr(where, step)
    left = after

    def killed(*arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return does(*arguments, **options)

    numbers = iter(range(1000))
    for _ in range(22):  # a generation is full, and the next one begins
        near.put({key(next(numbers)): bytes(400_000)})
    monkeypatch.setattr(where, step, killed)
    with suppress(Killed):
        for _ in range(50):
            near.put({key(next(numbers)): bytes(400_000)})
    monkeypatch.undo()
    for cache in (near, DiskNear(tmp_path / "near", SMALLEST)):
        for _ in range(30):
            number = next(numbers)
            cache.put({key(number): bytes(400_000)})
            assert cache.get([key(number)]) == [bytes(400_000)]
            assert disk_size(tmp_path / "near") <= SMALLEST + SLACK
        assert len(os.listdir(tmp_path / "near")) == 3
        cache.close()


def test_processes_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    """What is found is right, the size is kept, and those that come later go on."""
    directory = tmp_path / "near"
    chosen = random.Random(1)
    fillers = [_filler(directory, seed) for seed in range(2)]
    for seed in range(2, 8):
        time.sleep(chosen.random() / 5)
        victim = fillers.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert disk_size(directory) <= SMALLEST + 2 * SLACK
        fillers.append(_filler(directory, seed))
    for each in fillers:
        each.send_signal(signal.SIGKILL)
        each.wait()
    near = DiskNear(directory, SMALLEST)
    assert len(generations(directory)) <= 2
    numbers = range(3000)
    found = near.get([key(number) for number in numbers])
    assert sum(each is not None for each in found) > 30
    for number, content in zip(numbers, found, strict=True):
        assert content is None or content == number.to_bytes(4, "little") * (len(content) // 4)
    near.put({key(1): b"one"})
    assert near.get([key(1)]) == [b"one"]
    near.close()


def _filler(directory: Path, seed: int) -> subprocess.Popen[bytes]:
    filler = subprocess.Popen([sys.executable, str(FILLER), str(directory), str(seed)], stdout=subprocess.PIPE)
    assert filler.stdout is not None
    filler.stdout.readline()
    filler.stdout.close()
    return filler

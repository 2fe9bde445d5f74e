"""One fetch of a path at a time, across processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tvix_store.config.substituters import fetch_lock
from tvix_store.errors import UnavailableError
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.testing.content import noise

PATH, OTHER = noise(20, "path"), noise(20, "other")
HOLDER = """
import asyncio, sys
from pathlib import Path
from tvix_store.layers.fetch_lock import FetchLock

async def main():
    async with FetchLock(Path(sys.argv[1])).holding(bytes.fromhex(sys.argv[2])):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@contextmanager
def held_by_another_process(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDER, str(file), PATH.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder
        holder.kill()


async def is_free(lock: FetchLock, output_hash: bytes = PATH) -> bool:
    try:
        async with asyncio.timeout(0.2), lock.holding(output_hash):
            return True
    except TimeoutError:
        return False


async def test_neighbours_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Each lock is one byte of the file."""
    lock = FetchLock(tmp_path / "lock")
    one, next_one = (number.to_bytes(8, "big") + bytes(12) for number in (1 << 40, (1 << 40) + 4))
    for held, other in ((one, next_one), (next_one, one)):
        async with lock.holding(held):
            assert not await is_free(lock, held)
            assert await is_free(lock, other)


async def test_while_one_process_holds_a_path_another_waits(tmp_path: Path) -> None:
    lock = FetchLock(tmp_path / "lock")
    with held_by_another_process(tmp_path / "lock") as holder:
        assert not await is_free(lock)
        assert await is_free(lock, OTHER)
        assert holder.stdin is not None
        holder.stdin.close()
        assert holder.wait(10) == 0
        assert await is_free(lock)


async def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    lock = FetchLock(tmp_path / "lock")
    with held_by_another_process(tmp_path / "lock") as holder:
        waiting = asyncio.create_task(_hold(lock))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        holder.kill()
        await asyncio.wait_for(waiting, 5)


async def test_within_a_process_one_waits_for_the_other(tmp_path: Path) -> None:
    one, other = FetchLock(tmp_path / "lock"), FetchLock(tmp_path / "lock")
    async with one.holding(PATH):
        assert not await is_free(one)
        assert not await is_free(other)
        assert await is_free(other, OTHER)
    assert await is_free(other)


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    lock = FetchLock(tmp_path / "lock")
    async with lock.holding(PATH):
        assert not await is_free(lock)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot open .*absent/lock"):
        async with FetchLock(tmp_path / "absent/lock").holding(PATH):
            pass


async def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UnavailableError, match="cannot open"):
        async with FetchLock(tmp_path / "lock").holding(PATH):
            pass


def test_the_lock_of_a_remote_store_is_in_a_directory_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for port in (1, 2):
        lock = fetch_lock(f"grpc+http://127.0.0.1:{port}")
        assert lock is not None
        asyncio.run(_hold(lock))
    [directory] = tmp_path.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(list(directory.iterdir())) == 2


def test_a_store_in_memory_needs_no_lock() -> None:
    assert fetch_lock("memory://") is None


async def _hold(lock: FetchLock) -> None:
    async with lock.holding(PATH):
        pass

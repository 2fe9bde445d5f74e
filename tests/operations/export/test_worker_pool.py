"""A pool does what it is asked, and tells what went wrong; nobody waits for a worker that is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.operations.export.forked import forked
from tvix_store.backends.local import open_store
from tvix_store.errors import InvalidError, NotFoundError, UnavailableError
from tvix_store.operations.export.worker_pool import WorkerPool
from tvix_store.services.store import Store


def opening(directory: Path) -> Callable[[], Awaitable[Store]]:
    return lambda: open_store(directory / "store")


async def put(store: Store, blob: bytes) -> str:
    return (await store.blobs.put_many([blob]))[0].hex


async def pid(store: Store) -> int:
    return os.getpid()


async def refuse(store: Store) -> None:
    raise NotFoundError("blob", "x")


async def refuse_oddly(store: Store) -> None:
    raise ValueError("odd", lambda: None)


async def slowly(store: Store, seconds: float) -> int:
    time.sleep(seconds)  # noqa: ASYNC251 - a worker does one thing at a time
    return os.getpid()


async def die(store: Store) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@forked
async def test_what_members_put_is_there_for_all(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 2) as pool, await open_store(tmp_path / "store") as store:
        digests = await asyncio.gather(*(pool.run(put, b"%d" % n) for n in range(20)))
        found = await store.blobs.get_many([(await store.blobs.put_many([b"%d" % n]))[0] for n in range(20)])
    assert len(set(digests)) == 20
    assert found == [b"%d" % n for n in range(20)]


@forked
async def test_the_work_is_shared(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 2) as pool:
        pids = await asyncio.gather(*(pool.run(slowly, 0.02) for _ in range(6)))
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


@forked
async def test_errors_come_back_with_their_facts(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 1) as pool:
        with pytest.raises(NotFoundError, match="blob x is not in the store") as caught:
            await pool.run(refuse)
        assert (caught.value.kind, caught.value.key) == ("blob", "x")
        assert await pool.run(pid) != os.getpid()


@forked
async def test_a_store_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    async with WorkerPool(opening(tmp_path), 1) as pool:
        with pytest.raises((InvalidError, UnavailableError), match="store"):
            await pool.run(pid)


@forked
async def test_nobody_waits_for_a_member_that_was_killed(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 1) as pool:
        calls = [pool.run(slowly, 0.05), pool.run(slowly, 0.05), pool.run(die), pool.run(pid), pool.run(pid)]
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
        assert [type(each) for each in ended] == [int, int] + [UnavailableError] * 3
        with pytest.raises(UnavailableError):
            await pool.run(pid)


@forked
async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 1) as pool:
        cancelled = asyncio.create_task(pool.run(slowly, 0.05))
        other = asyncio.create_task(pool.run(put, b"blob"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert len(await other) == 64


@forked
async def test_members_end_with_the_crew(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 2) as pool:
        pids = await asyncio.gather(*(pool.run(slowly, 0.01) for _ in range(4)))
    for number in set(pids):
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@forked
async def test_an_error_that_cannot_be_sent_is_told_in_words(tmp_path: Path) -> None:
    async with WorkerPool(opening(tmp_path), 1) as pool:
        with pytest.raises(RuntimeError, match=r"ValueError: \('odd'"):
            await pool.run(refuse_oddly)
        assert await pool.run(pid) != os.getpid()


@forked
async def test_where_processes_are_scarce_there_are_fewer_members(tmp_path: Path) -> None:
    really_fork = os.fork
    forks = iter([really_fork, None])

    def scarce() -> int:
        fork = next(forks)
        if fork is None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fork", scarce)
        pool = WorkerPool(opening(tmp_path), 2)
    async with pool:
        assert pool.size == 1
        assert await pool.run(pid) != os.getpid()


def test_members_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    @forked
    async def parent() -> None:
        async with WorkerPool(opening(tmp_path), 2) as pool:
            for number in set(await asyncio.gather(*(pool.run(slowly, 0.01) for _ in range(4)))):
                os.write(writing, b"%d\n" % number)
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError):
        parent()
    os.close(writing)
    with os.fdopen(reading) as pipe:  # ends when both workers, which hold its other end, have ended
        assert len(pipe.read().split()) == 2

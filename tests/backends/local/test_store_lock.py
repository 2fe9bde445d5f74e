"""Who holds the lock of a store: all its users together, and alone whoever repairs it, for as long as that takes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backends.local.store_files import index_file, let_another_boot_follow
from tvix_store.backends.local import open_index, open_store
from tvix_store.backends.local.durability import FILE as FAILED
from tvix_store.backends.local.index_damage import FILE as DAMAGED
from tvix_store.backends.local.store_lock import StoreLock
from tvix_store.errors import CorruptError, ExhaustedError, UnavailableError
from tvix_store.model.digest import Digest

HARM: dict[str, Callable[[Path], object]] = {
    "another boot": let_another_boot_follow,
    "a failed sync": lambda store: (store / FAILED).write_bytes(b""),
    "a damaged index": lambda store: (store / DAMAGED).write_text("as the test wants it"),
    "a lost index": lambda store: index_file(store).unlink(),
}


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([b"content"])
    return tmp_path / "store"


@contextmanager
def another(store: Path) -> Iterator[StoreLock]:
    """The lock, as another process has it."""
    lock = StoreLock(store)
    try:
        yield lock
    finally:
        lock.close()


def is_free(store: Path) -> bool:
    with another(store) as lock:
        return lock.take_alone()


def may_be_used(store: Path) -> bool:
    fd = os.open(store / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.mark.parametrize("harm", HARM)
async def test_who_has_repaired_a_store_uses_it_with_others(directory: Path, harm: str) -> None:
    HARM[harm](directory)
    async with await open_store(directory) as store:
        assert may_be_used(directory)
        assert not is_free(directory)
        assert await store.blobs.get_many([Digest.of(b"content")]) == [b"content"]
    assert is_free(directory)


@pytest.mark.parametrize("harm", HARM)
async def test_a_store_is_held_alone_while_it_is_repaired(directory: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    HARM[harm](directory)
    used: list[bool] = []
    publish = open_index.publish

    def watch(*arguments: object) -> None:
        used.append(may_be_used(directory))
        publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(open_index, "publish", watch)
    async with await open_store(directory):
        assert used == [False]


@pytest.mark.parametrize("harm", ["another boot", "a failed sync", "a lost index"])
async def test_who_cannot_have_a_store_alone_holds_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    HARM[harm](directory)
    monkeypatch.setattr(open_index, "_TRIES", 3)
    monkeypatch.setattr(open_index, "PAUSE", 0.01)
    before = os.listdir("/proc/self/fd")
    with another(directory) as user:
        user.share()
        with pytest.raises(UnavailableError, match="other processes use the store"):
            await open_store(directory)
        assert user.take_alone()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    async with await open_store(directory):
        pass


async def test_who_uses_a_damaged_index_beside_others_is_a_user(directory: Path) -> None:
    """A try to have the store alone that fails takes away what was held before: see flock(2)."""
    (directory / DAMAGED).write_text("found by another process")
    with another(directory) as user:
        user.share()
        async with await open_store(directory):
            user.release()
            assert not is_free(directory)


async def test_two_that_find_a_store_torn_do_not_wait_for_each_other_for_ever(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lets go between two tries. So the other, who holds it shared at times, may have it alone."""
    let_another_boot_follow(directory)
    tries: list[bool] = []
    with another(directory) as other:

        def pause(_: float) -> None:
            tries.append(other.take_alone())
            other.release()

        other.share()
        monkeypatch.setattr(time, "sleep", pause)
        async with await open_store(directory):
            assert tries == [True]


@pytest.mark.parametrize("error", [ExhaustedError("the disk is full"), CorruptError("as the test wants it"), RuntimeError("a bug")])
async def test_who_fails_to_repair_a_store_holds_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    let_another_boot_follow(directory)

    def fail(*_: object) -> None:
        raise error

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(open_index, "replay", fail)
        for _ in range(2):
            with pytest.raises(type(error)):
                await open_store(directory)
            assert is_free(directory)
    assert len(os.listdir("/proc/self/fd")) == before
    async with await open_store(directory) as store:
        assert await store.blobs.get_many([Digest.of(b"content")]) == [b"content"]

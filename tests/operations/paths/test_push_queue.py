"""The queue of pushes, and the process that works on it, with a cache that a test leads."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest

from tvix_store.errors import InvalidError, StoreError, UnavailableError
from tvix_store.operations.paths import push_queue, queue_pusher
from tvix_store.operations.paths.push_queue import Entry, PushQueue, Target
from tvix_store.operations.paths.pushed import Pushed, PushStatus
from tvix_store.operations.paths.queue_pusher import Pauses, QueuePusher

A, B = Target("https://a.example.org"), Target("https://b.example.org", "local?root=/mnt")
QUICK = Pauses(look=0.001, stalled=0.05, cache=0.002, most_cache=0.01, path=0.002, most_path=0.01)


class Cache:
    """A cache that takes paths, unless a test has told it an error for a path, or for whole pushes."""

    def __init__(self) -> None:
        self.has: list[tuple[Target, str]] = []
        self.pushes: list[list[str]] = []
        self.errors: dict[str, StoreError] = {}
        self.refuse: Callable[[Sequence[str]], StoreError | None] = lambda paths: None
        self.gone: set[str] = set()
        self.hang = 0
        self.said: list[str] = []

    async def push(self, target: Target, paths: Sequence[str], moved: Callable[[], None]) -> AsyncGenerator[Pushed, None]:
        self.pushes.append(list(paths))
        await asyncio.sleep(0)
        if len(self.pushes) <= self.hang:
            for _ in range(3):
                await asyncio.sleep(0.03)
                moved()
            await asyncio.Event().wait()
        if (error := self.refuse(paths)) is not None:
            raise error
        for path in paths:
            if path in self.errors:
                yield Pushed(path, PushStatus.FAILED, error=self.errors[path])
            else:
                self.has.append((target, path))
                yield Pushed(path, PushStatus.COPIED)

    def pusher(self, queue: PushQueue, give_up_after: float | None = None) -> QueuePusher:
        return QueuePusher(
            queue, self.push, lambda _, path: path in self.gone, self.said.append, give_up_after=give_up_after, pauses=QUICK
        )


@pytest.fixture
def queue(tmp_path: Path) -> PushQueue:
    return PushQueue(tmp_path / "state/queue")


@pytest.fixture
def cache() -> Cache:
    return Cache()


def entry(*paths: str, target: Target = A, since: float | None = None) -> Entry:
    return Entry(target, paths, time.time() if since is None else since)


async def until(holds: Callable[[], object]) -> None:
    """Wait for something."""
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def waiting(queue: PushQueue) -> list[Entry]:
    return [found for name in queue.names() if (found := queue.get(name)) is not None]


def test_entries_come_back_as_they_were_put_the_oldest_first(queue: PushQueue) -> None:
    put = [entry("/nix/store/1"), entry("/nix/store/2", "/nix/store/3", target=B), entry("/nix/store/1")]
    for each in put:
        queue.put(each)
    assert waiting(PushQueue(queue.directory)) == put


def test_nobody_else_reads_the_queue_since_addresses_may_hold_secrets(queue: PushQueue) -> None:
    queue.put(entry("/nix/store/1"))
    with queue.alone():
        queue.write_state({})
    for found in (queue.directory, *queue.directory.rglob("*")):
        assert found.stat().st_mode & 0o077 == 0, found


def test_an_entry_is_on_the_disk_before_its_name_is(queue: PushQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.put(entry("/nix/store/1"))
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(fd: int) -> None:
        done.append(f"sync {'directory' if os.path.isdir(f'/proc/self/fd/{fd}') else 'file'}")
        fsync(fd)

    def noted_rename(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    queue.put(entry("/nix/store/2"))
    assert done == ["sync file", "rename", "sync directory"]


def test_what_a_killed_process_has_left_is_no_entry_and_is_removed_later(queue: PushQueue) -> None:
    queue.put(entry("/nix/store/1"))
    left = queue.directory / "waiting/.0123456789ab.new"
    left.write_bytes(b'{"to": ')
    assert len(waiting(queue)) == 1
    with queue.alone() as mine:
        assert mine is not None
    assert left.exists()
    os.utime(left, (0, 0))
    with queue.alone():
        assert not left.exists()


def test_a_damaged_entry_is_set_aside(queue: PushQueue) -> None:
    queue.put(entry("/nix/store/1"))
    for number, text in enumerate(("", "[]", '{"to": 1}', "null", '{"to": "x", "nixStore": null, "storeDir": "", "paths": 1}')):
        (queue.directory / f"waiting/{number}.json").write_text(text)
    assert len(waiting(queue)) == 1
    assert len(queue.names()) == 1
    assert len(list((queue.directory / "failed").iterdir())) == 5
    (queue.directory / "failed/5.json").write_text('{"to": "x", "pat')
    assert queue.failed() == []
    assert [each.name for each in queue.damaged()] == [f"{number}.json.damaged" for number in range(6)]
    assert queue.retry() == 0


def test_a_queue_into_which_others_can_write_is_not_used(queue: PushQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.put(entry("/nix/store/1"))
    queue.directory.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write to it"):
        queue.put(entry("/nix/store/2"))
    with pytest.raises(PermissionError), queue.alone():
        pass
    queue.directory.chmod(0o700)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        queue.put(entry("/nix/store/2"))


def test_many_entries_become_one_with_each_path_once(queue: PushQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_queue, "_MOST_SMALL", 20)
    for number in range(30):
        queue.put(entry(f"/nix/store/{number % 7}", target=B if number % 2 else A, since=1000 + number))
    assert queue.merge(dict(zip(queue.names(), waiting(queue), strict=True)))
    merged = {each.target: each for each in waiting(queue)}
    assert len(queue.names()) == 2
    for target, since in ((A, 1000), (B, 1001)):
        assert sorted(merged[target].paths) == [f"/nix/store/{number}" for number in range(7)]
        assert merged[target].since == since
    assert not queue.merge(dict(zip(queue.names(), waiting(queue), strict=True)))


def test_one_process_at_a_time_takes_out(queue: PushQueue) -> None:
    with queue.alone() as first, PushQueue(queue.directory).alone() as second:
        assert first is not None
        assert second is None
    with queue.alone() as third:
        assert third is not None


def test_the_lock_can_be_handed_over(queue: PushQueue) -> None:
    with queue.alone() as first:
        assert first is not None
        inherited = os.dup(first)  # as a process that is started has it
    with queue.alone() as second:
        assert second is None
    with queue.alone(inherited) as mine:
        assert mine == inherited
    with queue.alone() as third:
        assert third is not None


async def test_what_waits_is_pushed_and_taken_out(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/1", "/nix/store/2"))
    queue.put(entry("/nix/store/1", target=B))
    queue.put(entry("/nix/store/2", "/nix/store/3"))
    await cache.pusher(queue).run(0)
    assert sorted(cache.has, key=str) == [
        *((A, f"/nix/store/{number}") for number in (1, 2, 3)),
        (B, "/nix/store/1"),
    ]
    assert waiting(queue) == []


async def test_what_comes_later_is_pushed_too(queue: PushQueue, cache: Cache) -> None:
    serving = asyncio.create_task(cache.pusher(queue).run())
    for number in range(3):
        queue.put(entry(f"/nix/store/{number}"))
        await until(lambda: not waiting(queue))
    serving.cancel()
    assert len(cache.has) == 3


async def test_a_cache_that_is_down_is_tried_until_it_answers(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/1", "/nix/store/2"))
    cache.refuse = lambda _: UnavailableError("nobody answers") if len(cache.pushes) < 5 else None
    await cache.pusher(queue).run(0)
    assert len(cache.pushes) == 5
    assert waiting(queue) == []
    assert cache.said == [
        "https://a.example.org: nobody answers; the next try is in 0.002 s",
        "https://a.example.org: the pushes go on",
        "https://a.example.org: pushed 2 paths",
    ]


async def test_a_cache_that_is_down_holds_up_no_other(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/1"))
    queue.put(entry("/nix/store/2", target=B))
    cache.refuse = lambda paths: UnavailableError("down") if "/nix/store/1" in paths else None
    serving = asyncio.create_task(cache.pusher(queue).run())
    await until(lambda: cache.has)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert [each.target for each in waiting(queue)] == [A]
    assert queue.read_state()["caches"][0]["error"] == "down"


async def test_a_path_that_is_refused_waits_alone(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/bad", "/nix/store/good"))
    cache.errors = {"/nix/store/bad": InvalidError("it is too large")}
    serving = asyncio.create_task(cache.pusher(queue).run())
    await until(lambda: len(cache.pushes) >= 4)
    assert cache.pushes[1:4] == [["/nix/store/bad"]] * 3
    assert [each.paths for each in waiting(queue)] == [("/nix/store/bad",)]
    assert queue.read_state()["paths"] == [{"path": "/nix/store/bad", "error": "it is too large"}]
    assert len([line for line in cache.said if "too large" in line]) == 1
    cache.errors = {}
    await until(lambda: not waiting(queue))
    serving.cancel()


async def test_a_path_for_which_whole_pushes_are_refused_is_found_by_halves(queue: PushQueue, cache: Cache) -> None:
    paths = [f"/nix/store/{number}" for number in range(100)]
    queue.put(entry(*paths))
    cache.refuse = lambda paths: InvalidError("what is this?") if "/nix/store/37" in paths else None
    await cache.pusher(queue, give_up_after=0).run(0)
    assert sorted(path for _, path in cache.has) == sorted(set(paths) - {"/nix/store/37"})
    assert [(each.paths, each.error) for each in queue.failed()] == [(("/nix/store/37",), "what is this?")]
    assert len(cache.pushes) < 25


async def test_a_cache_that_refuses_everything_is_not_asked_about_each_path_at_once(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry(*(f"/nix/store/{number}" for number in range(50))))
    cache.refuse = lambda _: InvalidError("the disk is full")
    pusher = QueuePusher(queue, cache.push, lambda *_: False, cache.said.append, pauses=Pauses(look=0.001, cache=60, path=60))
    serving = asyncio.create_task(pusher.run())
    await until(lambda: "the next try is in 60 s" in "".join(cache.said))
    await asyncio.sleep(0.02)
    serving.cancel()
    assert len(cache.pushes) == 8  # 50, 25, 12, 6, 3, and three of one


async def test_paths_that_nix_has_deleted_are_dropped(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/gone", "/nix/store/there"))
    cache.errors = {"/nix/store/gone": InvalidError("it is not valid")}
    cache.gone = {"/nix/store/gone"}
    await cache.pusher(queue).run(0)
    assert waiting(queue) == queue.failed() == []
    assert cache.has == [(A, "/nix/store/there")]
    assert "/nix/store/gone was not pushed: Nix has deleted it" in cache.said


async def test_what_fails_for_too_long_is_set_aside_until_it_may_wait_again(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/old", since=time.time() - 100))
    queue.put(entry("/nix/store/new"))
    cache.refuse = lambda _: UnavailableError("down") if len(cache.pushes) < 3 else None
    await cache.pusher(queue, give_up_after=50).run(0)
    assert [(each.paths, each.error) for each in queue.failed()] == [(("/nix/store/old",), "down")]
    assert cache.has == [(A, "/nix/store/new")]
    assert queue.retry() == 1
    assert queue.failed() == []
    await cache.pusher(queue, give_up_after=50).run(0)
    assert cache.has[1:] == [(A, "/nix/store/old")]


async def test_a_bug_in_a_push_ends_nothing(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/1"))
    broken = True

    async def push(target: Target, paths: Sequence[str], moved: Callable[[], None]) -> AsyncGenerator[Pushed, None]:
        nonlocal broken
        if broken:
            broken = False
            raise ZeroDivisionError
        async for each in cache.push(target, paths, moved):
            yield each

    await QueuePusher(queue, push, lambda *_: False, cache.said.append, pauses=QUICK).run(0)
    assert cache.has == [(A, "/nix/store/1")]


async def test_a_push_in_which_nothing_moves_is_begun_again(queue: PushQueue, cache: Cache) -> None:
    queue.put(entry("/nix/store/1"))
    cache.hang = 2
    await cache.pusher(queue).run(0)
    assert (len(cache.pushes), cache.has) == (3, [(A, "/nix/store/1")])
    assert cache.said[0] == "https://a.example.org: nothing has moved for 0.05 s; the next try is in 0.002 s"


async def test_a_full_disk_ends_nothing(queue: PushQueue, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.put(entry("/nix/store/1", "/nix/store/2"))
    cache.errors = {"/nix/store/2": InvalidError("no")}
    monkeypatch.setattr(queue_pusher, "_DISK_PAUSE", 0.01)
    full = True

    def write_state(state: object) -> None:
        nonlocal full
        if full:
            full, cache.errors = False, {}
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(queue, "write_state", write_state)
    await cache.pusher(queue).run(0)
    assert waiting(queue) == []
    assert any("No space left on device" in line for line in cache.said)


def test_an_entry_of_a_later_version_with_more_in_it_is_understood() -> None:
    value = json.loads(entry("/nix/store/1").encode()) | {"priority": 3}
    assert Entry.decode(json.dumps(value).encode()).paths == ("/nix/store/1",)

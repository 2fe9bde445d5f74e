"""Upstreams that lie, stall or come late: what is asked of them next, and when. They are made up here, and so is the time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from types import SimpleNamespace

import pytest

from tvix_store.errors import InvalidError
from tvix_store.layers import substituter, substituters
from tvix_store.layers.substituter import Substituter, Terms
from tvix_store.layers.substituters import Substituters
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.services.store import Store
from tvix_store.services.upstream import UpstreamDownError, UpstreamFailsError, UpstreamLacksError, UpstreamLiesError
from tvix_store.testing.content import collect, noise

PAUSE, TTL = 5.0, 30.0
TERMS = Terms(unsigned=True, pause=PAUSE, negative_ttl=TTL)


class Made:
    """An Upstream that raises what it is told to. It notes each question."""

    name = "made up"

    def __init__(self, priority: int = 40) -> None:
        self.own_priority = priority
        self.asked: list[str] = []
        self.introduction: Exception | asyncio.Event | None = None
        """It raises this, or waits for it, when it is asked for its priority."""
        self.answer: Exception | bytes | None = None
        """It raises this for a path or a file. None means that it lacks files. It has all paths then."""

    async def content(self) -> Store | None:
        return None

    async def priority(self) -> int:
        self.asked.append("priority")
        if isinstance(self.introduction, asyncio.Event):
            await self.introduction.wait()
        elif self.introduction is not None:
            raise self.introduction
        return self.own_priority

    async def narinfo(self, output_hash: bytes) -> NarInfo | None:
        self.asked.append("narinfo")
        if isinstance(self.answer, Exception):
            raise self.answer
        return NarInfo(StorePath(output_hash, "path"), "nar/x.nar", "none", NarFacts(1, hashlib.sha256(b"").digest()))

    async def nar_file(self, _: NarInfo) -> AsyncGenerator[bytes, None]:
        raise UpstreamLacksError("it is not there")
        yield b""

    async def document(self, _path: str, _most: int) -> bytes | None:
        self.asked.append("document")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def stream(self, _path: str, _most: int) -> AsyncGenerator[bytes, None]:
        self.asked.append("stream")
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            raise UpstreamLacksError("it is not there")
        for at in range(0, len(self.answer), 400_000):
            yield self.answer[at : at + 400_000]

    async def close(self) -> None:
        self.asked.append("close")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time as substituters see it, in seconds: `now.at`."""
    clock = SimpleNamespace(at=1000.0)
    monkeypatch.setattr(substituter, "time", SimpleNamespace(monotonic=lambda: clock.at))
    return clock


async def has(source: Substituter, seed: str) -> bool:
    return await source.narinfo(noise(20, seed), STORE_DIR) is not None


async def test_after_a_lie_the_path_is_left_alone_and_another_is_asked_for(now: SimpleNamespace) -> None:
    upstream = Made()
    source = Substituter(upstream, TERMS)
    assert await has(source, "first")
    upstream.answer = UpstreamLiesError("no narinfo")
    assert not await has(source, "lied about")
    upstream.answer = None
    assert await has(source, "another")
    now.at += TTL - 0.1
    assert not await has(source, "lied about")
    now.at += 0.1
    assert await has(source, "lied about")


async def test_a_narinfo_is_checked_against_the_terms(now: SimpleNamespace) -> None:
    key = SecretKey.generate("upstream-1").public
    assert not await has(Substituter(Made(), Terms(public_keys=(key,))), "not signed")
    assert await has(Substituter(Made(), Terms(public_keys=(key,), unsigned=True)), "not signed")


async def test_who_lies_of_itself_is_left_alone_for_a_pause(now: SimpleNamespace) -> None:
    upstream = Made()
    upstream.introduction = UpstreamLiesError("a cache for another store directory")
    source = Substituter(upstream, TERMS)
    for seed in ("first", "second"):
        assert not await has(source, seed)
    assert upstream.asked == ["priority"]
    now.at += PAUSE - 0.1
    assert not await has(source, "first")
    now.at += 0.1
    upstream.introduction = None
    assert await has(source, "first")
    assert upstream.asked == ["priority", "priority", "narinfo"]


async def test_who_was_down_and_lies_is_up_again(now: SimpleNamespace) -> None:
    upstream = Made()
    source = Substituter(upstream, TERMS)
    assert await has(source, "first")
    upstream.answer = UpstreamDownError("it does not answer")
    assert not await has(source, "second")
    now.at += PAUSE
    upstream.answer = UpstreamLiesError("no narinfo")
    assert not await has(source, "second")
    upstream.answer = None
    assert await has(source, "third")


async def test_after_a_pause_one_asks_and_the_others_see_how_it_fares(now: SimpleNamespace) -> None:
    upstream = Made()
    upstream.introduction = UpstreamDownError("it does not answer")
    source = Substituter(upstream, TERMS)
    assert not await has(source, "first")
    now.at += PAUSE
    upstream.introduction = asyncio.Event()
    asks = asyncio.create_task(has(source, "first"))
    await asyncio.sleep(0)
    assert not await has(source, "second")
    upstream.introduction.set()
    assert await asks
    assert await has(source, "second")
    assert upstream.asked == ["priority", "priority", "narinfo", "narinfo"]


async def test_trouble_with_one_file_tells_nothing_of_others(now: SimpleNamespace) -> None:
    upstream = Made()
    source = Substituter(upstream, TERMS)
    upstream.answer = UpstreamFailsError("500")
    assert await source.document("log/x", 100, lambda text, _: text) is None
    assert await has_file(source, "log/y") is None
    upstream.answer = b"text"
    assert await source.document("log/z", 100, lambda text, _: text + b"!") == b"text!"
    assert await has_file(source, "log/z") == b"text"
    assert await source.document("log/x", 100, lambda text, _: text) is None, "it is remembered"


async def test_a_document_that_is_refused_is_a_lie_about_this_file_alone(now: SimpleNamespace) -> None:
    def refuse(_text: bytes, _terms: Terms) -> bytes:
        raise InvalidError("no log")

    upstream = Made()
    upstream.answer = b"text"
    source = Substituter(upstream, TERMS)
    assert await source.document("log/x", 100, refuse) is None
    assert await source.document("log/x", 100, lambda text, _: text) is None
    assert await source.document("log/y", 100, lambda text, _: text) == b"text"


async def has_file(source: Substituter, path: str) -> bytes | None:
    found = await source.stream(path, 10_000_000)
    return found if isinstance(found, bytes) or found is None else await collect(found)


@pytest.mark.parametrize("size", [0, 1000, 1 << 20, (1 << 20) + 1, 3_000_000])
async def test_a_file_comes_whole_however_large_it_is(now: SimpleNamespace, size: int) -> None:
    upstream = Made()
    upstream.answer = noise(size, "file")
    source = Substituter(upstream, TERMS)
    assert await has_file(source, "debuginfo/x") == upstream.answer
    upstream.answer = None
    assert await has_file(source, "debuginfo/y") is None


async def test_who_does_not_say_its_priority_in_time_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stalls, answers = Made(10), Made(40)
    stalls.introduction = asyncio.Event()
    first, second = Substituter(stalls, TERMS), Substituter(answers, TERMS)
    both = Substituters([first, second])
    monkeypatch.setattr(substituters, "_INTRODUCTION", 0.05)
    assert await asyncio.wait_for(both.in_order(), 10) == [second, first]
    monkeypatch.setattr(substituters, "_INTRODUCTION", 3600)
    assert await asyncio.wait_for(both.in_order(), 10) == [second, first]
    stalls.introduction.set()
    assert both._introductions is not None
    await both._introductions
    assert await both.in_order() == [first, second]
    assert stalls.asked == ["priority"]
    await both.close()


async def test_a_stated_priority_counts_unless_the_terms_have_one() -> None:
    asked = [Substituter(Made(priority), TERMS) for priority in (30, 10, 20, 10)]
    told = Substituter(Made(0), Terms(unsigned=True, priority=15))
    both = Substituters([*asked, told])
    assert await both.in_order() == [asked[1], asked[3], told, asked[2], asked[0]]
    await both.close()


async def test_who_waits_for_all_to_answer_waits_for_less_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(substituters, "_INTRODUCTION", 3600)
    late, other = Made(10), Made(40)
    late.introduction = asyncio.Event()
    both = Substituters([Substituter(other, TERMS), Substituter(late, TERMS)])
    waiting = asyncio.create_task(both.in_order())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    late.introduction.set()
    assert [each.priority for each in await asyncio.wait_for(waiting, 10)] == [10, 40]
    await both.close()


async def test_a_fault_that_nobody_foresaw_is_raised() -> None:
    upstream = Made()
    upstream.introduction = RuntimeError("a bug")
    both = Substituters([Substituter(upstream, TERMS)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug"):
            await both.in_order()
    await both.close()
    assert upstream.asked[-1] == "close"


async def test_closing_ends_an_introduction() -> None:
    upstream = Made()
    upstream.introduction = asyncio.Event()
    both = Substituters([Substituter(upstream, TERMS)])
    waiting = asyncio.create_task(both.in_order())
    await asyncio.sleep(0.01)
    await asyncio.wait_for(both.close(), 10)
    with pytest.raises(asyncio.CancelledError):
        await waiting

"""A cache that lies, or does not stop, poisons nothing and holds nobody up: the next one is asked."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.upstream.conftest import QUICK, Before
from tests.upstream.server import (
    STRANGER,
    Behaviour,
    CachedPath,
    CacheServer,
    cached,
    dripping,
    encoded,
    endless,
    raw,
    redirect,
    stalling,
    status,
)
from tvix_store.backends import local
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

GOOD = cached(noise(200_000), "good")
BOMB = lzma.compress(bytes(16 << 20), preset=0) * 64
"""A GiB of zeros, in streams that follow each other: a single stream takes seconds to make, in each process that imports this."""


def head(size: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + (f"Content-Length: {size}\r\n\r\n".encode() if size is not None else b"\r\n")


def signed_as(name: str) -> CachedPath:
    [signature] = GOOD.narinfo.signatures
    return replace(GOOD, narinfo=replace(GOOD.narinfo, signatures=(Signature(name, signature.data),)))


def other_nar(file: bytes, /, **changes: Any) -> CachedPath:
    """The good path's narinfo, with the facts of another file."""
    changes = {"file_hash": NixHash("sha256", hashlib.sha256(file).digest()), "file_size": len(file), **changes}
    return replace(GOOD.but(**changes), file=file)


def true_of(nar: bytes) -> CachedPath:
    """The good path's narinfo, signed, telling the truth of bytes that are no NAR."""
    return other_nar(nar, nar=NarFacts(len(nar), hashlib.sha256(nar).digest()))


OTHER = trees.nar(TreeFile(noise(200_000, "other")))
LIES: dict[str, tuple[CachedPath, str]] = {
    "unsigned": (GOOD.but(signatures=(), signed=False), "is not signed by upstream-1"),
    "signed by a stranger": (cached(noise(200_000), "good", key=STRANGER), "is not signed by upstream-1"),
    "a wrong signature": (GOOD.but(nar=NarFacts(1000, bytes(32)), signed=False), "bad signature by upstream-1"),
    "a good signature and a bad one": (
        GOOD.but(signatures=(*GOOD.narinfo.signatures, Signature("upstream-1", bytes(64))), signed=False),
        "bad signature by upstream-1",
    ),
    "other references than were signed": (
        GOOD.but(references=(StorePath(bytes(20), "x"),), signed=False),
        "bad signature by upstream-1",
    ),
    "another path": (replace(GOOD, narinfo=cached(name="other").narinfo), "it describes"),
    "another NAR": (other_nar(OTHER), "and hash sha256:"),
    "another file hash": (GOOD.but(file_hash=NixHash("sha256", bytes(32))), "not its FileHash"),
    "a smaller file size": (GOOD.but(file_size=100_000), "the file has more than 100000 bytes"),
    "a larger file size": (GOOD.but(file_size=300_000), "not 300000, its FileSize"),
    "a smaller NAR size": (
        GOOD.but(nar=replace(GOOD.narinfo.nar, size=100_000)),
        "the NAR has more than 100000 bytes, its NarSize",
    ),
    "a larger NAR size": (GOOD.but(nar=replace(GOOD.narinfo.nar, size=300_000)), "not 300000 and"),
    "a NAR cut short": (true_of(GOOD.nar[:-8]), "the NAR of"),
    "a NAR with more behind it": (true_of(GOOD.nar + bytes(8)), "the NAR of"),
    "no NAR": (true_of(noise(1000)), "the NAR of"),
    "an unknown compression": (GOOD.but(compression="rot13"), "compression 'rot13' is not supported"),
    "another compression": (GOOD.but(compression="xz"), "the NAR of"),
    "a bomb": (other_nar(BOMB, compression="xz"), "the NAR has more than"),
    "a file of frames that hold nothing": (
        other_nar(
            zstandard.ZstdCompressor().compress(GOOD.nar) + (b"\x50\x2a\x4d\x18\0\0\1\0" + bytes(65536)) * 60, compression="zstd"
        ).but(file_size=None, file_hash=None),
        "the file has more than",
    ),
    "a false content address": (GOOD.but(ca=ContentAddress(Method.NAR, NixHash("sha256", bytes(32)))), "by its content address"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_refused_and_the_next_cache_is_asked(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    path, reason = LIES[lie]
    cache.publish(path)
    cache.answers[GOOD.narinfo_path] = path.narinfo.format()
    front = await before(cache)
    assert await front.get(GOOD.output_hash) is None
    assert [each async for each in front.path_infos.list()] == []
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"substituter {cache.origin} is refused: ")
    assert reason in line
    other_cache.publish(GOOD)
    got = await (await before(cache, other_cache)).get(GOOD.output_hash)
    assert got is not None
    assert got.nar == GOOD.narinfo.nar


async def test_a_large_lie_leaves_nothing(cache: CacheServer, before: Before, tmp_path: Path) -> None:
    cache.publish(
        other_nar(trees.nar({b"a": TreeFile(noise(3_000_000)), b"b": TreeFile(b"b")}), nar=NarFacts(3_000_672, bytes(32)))
    )
    async with await local.open_store(tmp_path / "store") as store:
        front = await before(cache, store=store)
        assert await front.get(GOOD.output_hash) is None
        stats = await store.statistics.stats()  # type: ignore[union-attr]
        assert (stats.chunks, stats.directories) == (0, 0)


async def test_a_lie_is_not_fetched_again_and_again(cache: CacheServer, before: Before) -> None:
    cache.publish(path := other_nar(OTHER))
    front = await before(cache)
    for _ in range(3):
        assert await front.get(GOOD.output_hash) is None
    assert cache.asked(path.nar_path) == 1


BAD_NARINFOS: dict[str, bytes | Behaviour] = {
    "nothing": b"",
    "no narinfo": b"<html>welcome to the hotel</html>\n",
    "cut short": GOOD.narinfo.format()[:-5],
    "another store directory": GOOD.narinfo.format("/gnu/store"),
    "too long": GOOD.narinfo.format() + b"X: " + b"x" * (4 << 20) + b"\n",
    "endless": endless(head() + GOOD.narinfo.format()),
    "an endless header": endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "endless header fields": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "no HTTP": raw(b"220 smtp.example.org ESMTP\r\n"),
    "a bomb of an encoding": encoded(zstandard.ZstdCompressor().compress(bytes(1 << 28)), "zstd"),
    "an unknown encoding": encoded(GOOD.narinfo.format(), "rot13"),
    "a damaged encoding": encoded(b"not gzip at all", "gzip"),
    "a body cut short": raw(head(5000) + GOOD.narinfo.format()),
    "500": status(500),
    "429": status(429),
    "401": status(401),
    "206": status(206),
    "silence": stalling(),
    "silence behind the header": stalling(head(5000)),
    "silence in the body": stalling(head(5000) + GOOD.narinfo.format()[:100]),
    "drops": dripping(head(5000), 0.1),
    "a redirect in a circle": redirect(GOOD.narinfo_path),
    "a redirect to nowhere": raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to what is no URL": redirect("http://[/"),
    "a redirect with credentials": redirect("http://user:password@192.0.2.9/"),
}


@pytest.mark.parametrize("badness", BAD_NARINFOS)
async def test_a_bad_narinfo_costs_little(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture, badness: str
) -> None:
    cache.answers[GOOD.narinfo_path] = BAD_NARINFOS[badness]
    other_cache.publish(GOOD)
    front = await before(cache, other_cache, timeouts=QUICK)
    began = time.monotonic()
    assert await front.get(GOOD.output_hash)
    assert time.monotonic() - began < 8
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"substituter {cache.origin} is ")


async def test_redirects_end(cache: CacheServer, before: Before) -> None:
    cache.answers[GOOD.narinfo_path] = redirect(GOOD.narinfo_path)
    await (await before(cache)).get(GOOD.output_hash)
    assert cache.asked(GOOD.narinfo_path) == 6


BAD_NARS: dict[str, bytes | Behaviour] = {
    "404": status(404),
    "500": status(500),
    "cut short": raw(head(len(GOOD.file)) + GOOD.file[:-100]),
    "cut short, without a length": raw(head() + GOOD.file[:-100]),
    "endless": endless(head() + GOOD.file),
    "silence": stalling(),
    "silence in the body": stalling(head(len(GOOD.file)) + GOOD.file[:-100]),
    "drops": dripping(head(len(GOOD.file)) + GOOD.file[:-2000], 0.1),
    "an unknown encoding": encoded(GOOD.file, "rot13"),
    "an encoding that is none": encoded(GOOD.file, "gzip"),
    "an endless encoding": endless(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n", zstandard.ZstdCompressor().compress(bytes(1 << 20))
    ),
    "a broken chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


@pytest.mark.parametrize("badness", BAD_NARS)
async def test_a_bad_answer_instead_of_a_nar_costs_little(
    cache: CacheServer, other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture, badness: str
) -> None:
    cache.publish(GOOD)
    other_cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = BAD_NARS[badness]
    front = await before(cache, other_cache, timeouts=QUICK)
    began = time.monotonic()
    assert await front.get(GOOD.output_hash)
    assert time.monotonic() - began < 8
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"substituter {cache.origin} ")
    assert "is down" not in line


async def test_a_nar_that_breaks_off_does_not_make_a_cache_count_as_down(cache: CacheServer, before: Before) -> None:
    cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = raw(head(len(GOOD.file)) + GOOD.file[:-100])
    fine = cache.publish(cached(name="fine"))
    front = await before(cache, pause=60)
    assert await front.get(GOOD.output_hash) is None
    assert cache.asked(GOOD.nar_path) == 2
    assert await front.get(fine.output_hash)


async def test_a_cache_that_lacks_a_nar_is_asked_for_others(cache: CacheServer, other_cache: CacheServer, before: Before) -> None:
    for each in (cache, other_cache):
        each.publish(GOOD)
    del cache.answers[GOOD.nar_path]
    fine = cache.publish(cached(name="fine"))
    front = await before(cache, other_cache, pause=60)
    assert await front.get(GOOD.output_hash)
    assert cache.asked(GOOD.nar_path) == 1
    assert await front.get(fine.output_hash)


async def test_nars_of_a_cache_that_stalls_keep_nobody_waiting_for_another(
    cache: CacheServer, other_cache: CacheServer, before: Before
) -> None:
    stalled = [cache.publish(cached(name=f"stalled-{number}", tree=b"%d" % number)) for number in range(16)]
    reached = asyncio.Semaphore(0)

    async def stall(_: asyncio.StreamWriter) -> None:
        reached.release()
        await asyncio.sleep(3600)

    for path in stalled:
        cache.answers[path.nar_path] = stall
    front = await before(cache, other_cache)
    waiting = [asyncio.create_task(front.get(path.output_hash)) for path in stalled]
    for _ in range(4):
        await reached.acquire()
    assert await asyncio.wait_for(front.get(other_cache.publish(GOOD).output_hash), 10)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("badness", ["silence", "silence in the body", "drops"])
async def test_who_stalls_is_not_tried_twice(cache: CacheServer, before: Before, badness: str) -> None:
    cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = BAD_NARS[badness]
    front = await before(cache, timeouts=QUICK)
    assert await front.get(GOOD.output_hash) is None
    assert cache.asked(GOOD.nar_path) == 1


async def test_who_is_too_slow_is_left(cache: CacheServer, other_cache: CacheServer, before: Before) -> None:
    """3,000 bytes at a time are more than silence, and still nothing to wait for."""

    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(head(len(GOOD.file)))
        for at in range(0, len(GOOD.file), 3000):
            writer.write(GOOD.file[at : at + 3000])
            await writer.drain()
            await asyncio.sleep(0.1)

    cache.publish(GOOD)
    other_cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = slow
    began = time.monotonic()
    assert await (await before(cache, other_cache, timeouts=QUICK)).get(GOOD.output_hash)
    assert time.monotonic() - began < 4


async def test_a_nar_that_came_in_the_second_try_is_kept(cache: CacheServer, before: Before) -> None:
    cache.publish(GOOD)

    async def first(writer: asyncio.StreamWriter) -> None:
        cache.publish(GOOD)
        await raw(head(len(GOOD.file)) + GOOD.file[:-100])(writer)

    cache.answers[GOOD.nar_path] = first
    assert await (await before(cache)).get(GOOD.output_hash)


class Breaking:
    """Gives out a file piece by piece, each on a connection of its own, and heeds ranges."""

    def __init__(self, file: bytes, piece: int, content_range: str = "bytes {}-{}/{}", status: str = "206 Partial Content") -> None:
        self._file = file
        self._piece = piece
        self._content_range = content_range
        self._status = status
        self._cache: CacheServer | None = None

    def at(self, cache: CacheServer) -> Breaking:
        self._cache = cache
        return self

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        assert self._cache is not None
        wanted = self._cache.requests[-1].headers.get("range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        length = len(self._file)
        lines = [f"HTTP/1.1 {self._status if wanted else '200 OK'}", "Accept-Ranges: bytes", f"Content-Length: {length - start}"]
        if wanted:
            lines.append("Content-Range: " + self._content_range.format(start, length - 1, length))
        writer.write("\r\n".join([*lines, "", ""]).encode() + self._file[start : start + self._piece])
        await writer.drain()


async def test_a_nar_that_breaks_off_is_taken_up_where_it_did(cache: CacheServer, before: Before) -> None:
    cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = Breaking(GOOD.file, len(GOOD.file) // 5 + 1).at(cache)
    assert await (await before(cache)).get(GOOD.output_hash)
    assert cache.asked(GOOD.nar_path) == 5


@pytest.mark.parametrize(
    ("piece", "content_range", "status"),
    [
        (1000, "bytes {}-{}/{}", "206 Partial Content"),
        (0, "bytes {}-{}/{}", "206 Partial Content"),
        (150_000, "bytes 0-{1}/{2}", "206 Partial Content"),
        (150_000, "none", "206 Partial Content"),
        (150_000, "bytes {}-{}/{}", "200 OK"),
        (150_000, "bytes {}-{}/{}", "416 Range Not Satisfiable"),
    ],
)
async def test_taking_up_a_nar_again_comes_to_an_end(
    cache: CacheServer, other_cache: CacheServer, before: Before, piece: int, content_range: str, status: str
) -> None:
    cache.publish(GOOD)
    other_cache.publish(GOOD)
    cache.answers[GOOD.nar_path] = Breaking(GOOD.file, piece, content_range, status).at(cache)
    assert await (await before(cache, other_cache)).get(GOOD.output_hash)
    assert other_cache.asked(GOOD.nar_path) == 1
    assert cache.asked(GOOD.nar_path) <= 12


async def test_where_nobody_listens_the_next_cache_is_asked(other_cache: CacheServer, before: Before, unused_tcp_port: int) -> None:
    other_cache.publish(GOOD)
    nobody = f"http://127.0.0.1:{unused_tcp_port}?require-signatures=false"
    assert await (await before(nobody, other_cache)).get(GOOD.output_hash)


async def test_where_connections_are_not_taken_the_next_cache_is_asked(
    other_cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture
) -> None:
    other_cache.publish(GOOD)
    with ExitStack() as opened, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        for _ in range(3):  # as many as wait to be taken; what comes then gets no answer
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        front = await before(f"http://127.0.0.1:{full.getsockname()[1]}?require-signatures=false", other_cache, timeouts=QUICK)
        began = time.monotonic()
        assert await front.get(GOOD.output_hash)
        assert time.monotonic() - began < 8
        assert "is down" in caplog.text


async def test_the_log_does_not_flow_over(cache: CacheServer, before: Before, caplog: pytest.LogCaptureFixture) -> None:
    lies: list[CachedPath] = [cache.publish(cached(name=f"path-{n}", key=None)) for n in range(50)]
    front = await before(cache)
    await asyncio.gather(*(front.get(path.output_hash) for path in lies))
    assert len(caplog.records) == 1

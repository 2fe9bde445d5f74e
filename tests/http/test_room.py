"""What a worker gives to uploads is given back, and bounded: windows, and places to work."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cache

import pytest
import zstandard

from tvix_store.asgi import Event
from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, StoreError
from tvix_store.http.request import Request
from tvix_store.http.response import Response
from tvix_store.http.settings import CacheSettings
from tvix_store.http.uploads import Uploads
from tvix_store.model import nixbase32
from tvix_store.nar import tokens
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile
from tvix_store.traffic import Budget, LostPlaceError

NAR = trees.nar({b"a": TreeFile(noise(3_000_000, "room")), b"b": TreeFile(b"small")})


@cache
def narrow(nar: bytes) -> bytes:
    return lzma.compress(nar, preset=0)


@cache
def wide(nar: bytes) -> bytes:
    """Wants a window of 64 MiB. A preset with such a window would work for a second."""
    return lzma.compress(nar, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}])


def request(body: bytes, traffic: Budget, *, stalls: bool = False, timeout: float = 5) -> Request:
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]

    async def receive() -> Event:
        if not pieces and stalls:
            await asyncio.sleep(3600)
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces) or stalls}

    scope = {"method": "PUT", "raw_path": b"/nar/x", "query_string": b"", "headers": [], "http_version": "1.1"}
    return Request(scope, receive, timeout, traffic)


async def put(uploads: Uploads, asked: Request, file: bytes, suffix: str) -> Response:
    """Put a NAR as the application does."""
    with asked.arriving:
        return await uploads.put(asked, name(file, suffix))


def name(file: bytes, suffix: str = "") -> bytes:
    return f"{nixbase32.encode(hashlib.sha256(file).digest())}.nar{suffix}".encode()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as store:
        yield store


def made(store: Store, timeout: float = 5) -> Uploads:
    return Uploads(store, CacheSettings(body_timeout=timeout))


async def fails(*_: object) -> None:
    raise ExhaustedError("the disk is full")


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (narrow, ".xz"), (wide, ".xz")])
async def test_what_failed_gives_its_place_back_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    uploads, budget = made(replace(store, staging=None)), Budget(160 << 20)
    monkeypatch.setattr(store.blobs, "put", fails)
    file = pack(NAR)
    for _ in range(12):
        with pytest.raises(StoreError):
            await asyncio.wait_for(put(uploads, request(file, budget), file, suffix), 10)
        assert budget.held == 0
    monkeypatch.undo()
    assert (await asyncio.wait_for(put(uploads, request(file, budget), file, suffix), 10)).status == 201


async def test_a_wide_window_waits_for_room_that_narrow_ones_have_and_who_trickles_loses_it(store: Store) -> None:
    uploads, budget = made(store, timeout=60), Budget(160 << 20, spared=2.0)
    cut = wide(NAR + bytes(20_000_000))[: len(wide(NAR)) - 1000]
    slow = [asyncio.create_task(put(uploads, request(cut, budget, stalls=True, timeout=60), cut, ".xz")) for _ in range(2)]
    await asyncio.sleep(0.5)
    assert (await put(uploads, request(narrow(NAR), budget), narrow(NAR), ".xz")).status == 201
    assert not any(task.done() for task in slow)
    assert (await asyncio.wait_for(put(uploads, request(wide(NAR), budget), wide(NAR), ".xz"), 10)).status == 201
    lost = [task for task in slow if task.done()]
    assert len(lost) == 1
    with pytest.raises(LostPlaceError, match="the client did too little"):
        await lost[0]
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert budget.held == 0


async def test_zeros_without_an_end_hold_up_nobody(store: Store) -> None:
    """Eight of them had all places of a worker until they were at their ends: 36 GB each, for 59 s."""
    uploads, budget = made(store), Budget(1 << 30)
    size = 20 << 30
    stream = zstandard.ZstdCompressor(1).compressobj()
    head = stream.compress(tokens.MAGIC + tokens.file_start(size, executable=False))
    zeros = bytes(16 << 20)
    bomb = head + b"".join(stream.compress(zeros) for _ in range(64)) + stream.flush()
    endless = [asyncio.create_task(put(uploads, request(bomb, budget), bomb, ".zst")) for _ in range(8)]
    await asyncio.sleep(0.1)
    assert (await asyncio.wait_for(put(uploads, request(narrow(NAR), budget), narrow(NAR), ".xz"), 60)).status == 201
    assert not any(task.done() for task in endless)
    for task in endless:
        task.cancel()
    await asyncio.gather(*endless, return_exceptions=True)
    assert budget.held == 0


async def test_however_often_uploads_are_cancelled_there_are_as_many_places(store: Store) -> None:
    """At any moment, and twice in a row: where they wait for a place, work at one, or give it to others."""
    uploads, budget = made(store), Budget(1 << 30)
    files = [(narrow(NAR), ".xz"), (zstandard.compress(NAR + bytes(30_000_000)), ".zst"), (NAR, "")]
    places = uploads._places._value
    for wait in range(12):
        tasks = [asyncio.create_task(put(uploads, request(file, budget), file, suffix)) for file, suffix in files * 6]
        await asyncio.sleep(wait * 0.01)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert uploads._places._value == places
        assert budget.held == 0

"""What a worker gives to uploads is given back, and bounded: windows, and places to work."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tvix_store.asgi import Event
from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, StoreError
from tvix_store.http import uploads as module
from tvix_store.http.request import Request
from tvix_store.http.settings import CacheSettings
from tvix_store.http.status import HttpError
from tvix_store.http.uploads import Uploads
from tvix_store.model import nixbase32
from tvix_store.operations.nar_links import NarLinks
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

NAR = trees.nar({b"a": TreeFile(noise(3_000_000, "room")), b"b": TreeFile(b"small")})
WIDE = lzma.compress(NAR, preset=9)
"""Wants a window of 64 MiB."""


def request(body: bytes, *, stalls: bool = False, timeout: float = 5) -> Request:
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]

    async def receive() -> Event:
        if not pieces and stalls:
            await asyncio.sleep(3600)
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces) or stalls}

    scope = {"method": "PUT", "raw_path": b"/nar/x", "query_string": b"", "headers": [], "http_version": "1.1"}
    return Request(scope, receive, timeout)


def name(file: bytes, suffix: str = "") -> bytes:
    return f"{nixbase32.encode(hashlib.sha256(file).digest())}.nar{suffix}".encode()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as store:
        yield store


def made(store: Store, timeout: float = 5) -> Uploads:
    assert store.records is not None
    return Uploads(store, NarLinks(store.records), CacheSettings(body_timeout=timeout))


async def fails(*_: object) -> None:
    raise ExhaustedError("the disk is full")


@pytest.mark.parametrize("file", [NAR, lzma.compress(NAR, preset=0), WIDE])
async def test_what_failed_gives_its_place_back_at_once(store: Store, monkeypatch: pytest.MonkeyPatch, file: bytes) -> None:
    uploads = made(replace(store, staging=None))
    monkeypatch.setattr(store.blobs, "put", fails)
    suffix = "" if file is NAR else ".xz"
    for _ in range(12):
        with pytest.raises(StoreError):
            await asyncio.wait_for(uploads.put(request(file), name(file, suffix)), 10)
    monkeypatch.undo()
    assert (await asyncio.wait_for(uploads.put(request(file), name(file, suffix)), 10)).status == 201


async def test_few_wide_windows_are_kept_at_a_time_and_others_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = made(store, timeout=0.5)
    cut = lzma.compress(NAR + bytes(20_000_000), preset=9)[: len(WIDE) - 1000]
    slow = [
        asyncio.create_task(uploads.put(request(cut, stalls=True, timeout=5), name(cut, ".xz")))
        for _ in range(module._WIDE_AT_ONCE)
    ]
    await asyncio.sleep(0.3)
    with pytest.raises(HttpError, match="large windows") as refused:
        await uploads.put(request(WIDE), name(WIDE, ".xz"))
    assert refused.value.status == 413
    narrow = lzma.compress(NAR, preset=6)
    assert (await uploads.put(request(narrow), name(narrow, ".xz"))).status == 201
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await uploads.put(request(WIDE), name(WIDE, ".xz"))).status == 201

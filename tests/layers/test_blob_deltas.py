"""BlobDeltas: what callers that come and leave may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.compression import delta
from tvix_store.layers.blob_deltas import BlobDeltas
from tvix_store.model.digest import Digest
from tvix_store.services.blobs import Chunk
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_file


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as opened:
        yield opened


async def test_a_caller_that_leaves_keeps_its_turn_until_its_thread_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = [threading.Event() for _ in range(2)], threading.Event()
    count = iter(begun)

    def slow(_base: bytes, _target: bytes) -> bytes:
        next(count).set()
        assert may_end.wait(30)
        return b"delta"

    monkeypatch.setattr(delta, "make_delta", slow)
    deltas = BlobDeltas(store.blobs)
    base, *targets = [(await put_file(store.blobs, noise(100, name))).digest for name in ("base", "one", "two")]

    def making(target: Digest) -> asyncio.Task[bytes | None]:
        return asyncio.create_task(deltas.make(base, Chunk(target, 100), 100))

    first = making(targets[0])
    assert await asyncio.to_thread(begun[0].wait, 30)
    first.cancel()
    second = making(targets[1])
    assert not await asyncio.to_thread(begun[1].wait, 0.2), "two are made at a time"
    may_end.set()
    assert await second == b"delta"
    with pytest.raises(asyncio.CancelledError):
        await first

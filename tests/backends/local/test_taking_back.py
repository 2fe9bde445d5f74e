"""Whoever finds condemned content says that it is there only when it is live again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage, put_path, remove
from tvix_store.backends.local import open_store
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.requests import Look
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import noise

CONTENT = noise(1000, "content")
DIGEST = Digest.of(CONTENT)


async def is_missing(store: Store) -> bool:
    return bool(await store.blobs.missing([DIGEST]))


async def has_no_stat(store: Store) -> bool:
    return await store.blobs.stat(DIGEST) is None


@pytest.mark.parametrize("lacks", [is_missing, has_no_stat])
async def test_who_finds_it_waits_for_a_commit_that_is_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: Callable[[Store], Coroutine[Any, Any, bool]]
) -> None:
    """The commit waits for a transaction that deletes what is condemned, as a collector in another process may do."""
    async with await open_store(tmp_path / "store") as store:
        await put_path(store, "kept", {b"file": b"kept"})
        await remove(store, await put_path(store, "gone", {b"file": CONTENT}))
        await collect_garbage(store, GRACE)
        engine, loop = engine_of(store), asyncio.get_running_loop()
        index, wait_for = engine.index, asyncio.Event()
        missing_now, chunk_now = LocalBlobs._missing, index.chunk

        def committing() -> None:
            """A commit begins to take back what was found, and does not get to it."""
            if not wait_for.is_set():
                engine.committer.submit(Look())
                while index.wanted_back:
                    pass
                loop.call_soon_threadsafe(wait_for.set)

        def missing(self: LocalBlobs, digests: Sequence[Digest]) -> set[Digest]:
            found = missing_now(self, digests)
            committing()
            return found

        def chunk(digest: bytes) -> Place | None:
            found = chunk_now(digest)
            if digest == DIGEST.raw and lacks is has_no_stat:
                committing()
            return found

        monkeypatch.setattr(LocalBlobs, "_missing", missing)
        monkeypatch.setattr(index, "chunk", chunk)
        with index.writing() as txn:
            answer = asyncio.create_task(lacks(store))
            await wait_for.wait()
            done, _ = await asyncio.wait([answer], timeout=0.2)
            index.drop_all_condemned(txn)
        assert not done
        assert await answer

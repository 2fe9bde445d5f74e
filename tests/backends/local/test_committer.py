"""The committer answers everybody, whatever happens to those who asked."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from time import monotonic

import pytest

from tests.backends.local.store_files import opened_index
from tvix_store.backends.local import open_store
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import PREFIX_SIZE
from tvix_store.backends.local.request_queue import RequestQueue
from tvix_store.errors import ExhaustedError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.testing.content import collect, noise, pieces, stream


async def test_cancelled_puts_do_not_disturb_the_others(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        for turn in range(100):
            data = [noise(40_000 if turn % 2 else 2_000_000, f"turn {turn} put {n}") for n in range(6)]
            puts = [asyncio.create_task(store.blobs.put(pieces(each, 1 << 20))) for each in data]
            await asyncio.sleep(0.0005 * (turn % 7))
            for put in puts[::2]:
                put.cancel()
            results = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 30)
            for each, result in list(zip(data, results, strict=True))[1::2]:
                assert result == Digest.of(each)
        assert await collect(store.blobs.read(Digest.of(data[1]))) == data[1]


async def test_records_that_are_not_durable_are_synced_soon_also_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def watch(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", watch)
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        for number in range(3):
            await store.records.put({b"link": b"%d" % number}, durable=False)
            size = sum(path.stat().st_size for path in (tmp_path / "store" / "packs").iterdir())
            begun = monotonic()
            while not any(reached >= size for reached in synced):
                await store.blobs.put_many([noise(10_000, f"{monotonic()}")])
                assert monotonic() < begun + 1


async def test_a_store_that_is_closed_says_so(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "store")
    await store.close()
    with pytest.raises(UnavailableError, match="closed"):
        await store.blobs.put(stream([noise(40_000, "late")]))


async def test_nobody_waits_for_a_committer_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: RequestQueue, _timeout: float | None, _most: int) -> None:
        raise AssertionError("a bug")

    store = await open_store(tmp_path / "store")
    monkeypatch.setattr(RequestQueue, "take", die)
    puts = [store.blobs.put(stream([noise(40_000, f"{n}")])) for n in range(3)]
    results = await asyncio.wait_for(asyncio.gather(*puts, return_exceptions=True), 10)
    assert any(isinstance(result, UnavailableError) for result in results)
    assert all(isinstance(result, (UnavailableError, Digest)) for result in results)
    await store.close()


async def test_a_new_pack_counts_as_one_of_the_store_before_anything_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its next owner may cut it, should the process die now."""

    def full(*_: object) -> None:
        raise ExhaustedError("the disk is full")

    async with await open_store(tmp_path / "store") as store:
        with monkeypatch.context() as patched:
            patched.setattr(PackWriter, "append", full)
            with pytest.raises(ExhaustedError):
                await store.blobs.put_many([b"content"])
    index = opened_index(tmp_path / "store")
    with index.reading() as txn:
        assert index.committed_packs(txn) == {1: PREFIX_SIZE}
    index.close()
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([b"content"])
    assert os.listdir(tmp_path / "store/packs") == ["00000001.pack"]

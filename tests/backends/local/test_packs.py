"""Packs are filled, sealed and taken over, and every byte stays where the index says."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces, stream

SMALL = 1 << 20


async def check(store: Store, contents: list[bytes]) -> None:
    for data in contents:
        assert await collect(store.blobs.read(Digest.of(data))) == data


@pytest.mark.parametrize("size", [30_000, 300_000, 5_000_000])
async def test_blobs_cross_from_pack_to_pack(tmp_path: Path, size: int) -> None:
    contents = [noise(size, f"crossing {n}") for n in range(12_000_000 // size)]
    async with await open_store(tmp_path / "store", pack_size=SMALL) as store:
        await asyncio.gather(*(store.blobs.put(pieces(data, 100_000)) for data in contents))
        await check(store, contents)
    assert len(os.listdir(tmp_path / "store" / "packs")) >= 10_000_000 // (SMALL + (16 << 20)) + 1
    shutil.rmtree(tmp_path / "store" / "index")
    async with await open_store(tmp_path / "store") as store:
        await check(store, contents)


async def test_a_blob_as_large_as_many_packs_is_whole(tmp_path: Path) -> None:
    data = noise(100_000_000, "as large as many packs")
    async with await open_store(tmp_path / "store", pack_size=8 * SMALL) as store:
        digest = await store.blobs.put(pieces(data, 1 << 20))
        await check(store, [data])
        assert await collect(store.blobs.read(digest, 77_777_777, 77_777_999)) == data[77_777_777:77_777_999]
    assert len(os.listdir(tmp_path / "store" / "packs")) > 5


async def test_an_unfinished_pack_is_taken_over(tmp_path: Path) -> None:
    contents = [noise(50_000, f"taken over {n}") for n in range(10)]
    for data in contents:
        async with await open_store(tmp_path / "store") as store:
            await store.blobs.put(stream([data]))
    assert os.listdir(tmp_path / "store" / "packs") == ["00000001.pack"]
    async with await open_store(tmp_path / "store") as store:
        await check(store, contents)


async def test_sync_brings_what_was_put_to_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fdatasync = os.fdatasync

    def watch(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fdatasync(fd)

    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put(stream([noise(50_000, "synced")]))
        monkeypatch.setattr(os, "fdatasync", watch)
        await store.sync()
        assert any("/packs/" in path for path in synced)

"""Packs are filled, sealed and taken over, and every byte stays where the index says."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store
from tvix_store.backends.local.packs import PREFIX_SIZE
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
    """By system calls; tests of what must be synced when replace these."""
    synced: dict[int, int] = {}

    def watch(call: Callable[[int], None]) -> Callable[[int], None]:
        def watched(fd: int) -> None:
            call(fd)
            synced[os.fstat(fd).st_ino] = os.fstat(fd).st_size

        return watched

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, watch(getattr(os, name)))
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await store.blobs.put(stream([noise(50_000, "synced")]))
        for path in (directory, directory / "settings.json", directory / "index", directory / "packs"):
            assert path.stat().st_ino in synced
        [pack] = (directory / "packs").iterdir()
        assert synced[pack.stat().st_ino] == PREFIX_SIZE
        await store.sync()
        assert synced[pack.stat().st_ino] == pack.stat().st_size > 50_000

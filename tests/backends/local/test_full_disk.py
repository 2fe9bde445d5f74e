"""A full disk: a clean error, the store stays readable, and works again when there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_disk import mounted
from tvix_store.backends.local import open_store
from tvix_store.errors import ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.testing.content import collect, noise, stream

SIZE_MIB = 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", SIZE_MIB) as disk:
        yield disk


@pytest.mark.parametrize("piece", [1000, 200_000, 3_000_000])
async def test_a_full_disk_is_an_error_and_the_store_goes_on(small_disk: Path, piece: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    async with await open_store(small_disk / "store") as store:
        kept: list[bytes] = []

        async def put_until_full() -> None:
            for number in range(100_000):
                data = noise(piece, f"piece {number}")
                await store.blobs.put(stream([data]))
                kept.append(data)

        with pytest.raises(ExhaustedError, match="free some space"):
            await put_until_full()
        # With small ones, most of the disk is the index: its pages are not used again before the next checkpoint.
        assert len(kept) * piece > (150_000 if piece == 1000 else 2_000_000)
        for data in kept:
            assert await collect(store.blobs.read(Digest.of(data))) == data
        with pytest.raises(ExhaustedError):
            await store.blobs.put(stream([noise(3_000_000, "still full")]))
        ballast.unlink()
        last = noise(500_000, "room again")
        await store.blobs.put(stream([last]))
        assert await collect(store.blobs.read(Digest.of(last))) == last
    async with await open_store(small_disk / "store") as store:
        for data in [*kept, last]:
            assert await collect(store.blobs.read(Digest.of(data))) == data


async def test_a_store_on_a_full_disk_opens_and_reads(small_disk: Path) -> None:
    data = noise(100_000, "before")
    async with await open_store(small_disk / "store") as store:
        await store.blobs.put(stream([data]))
    with (small_disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            os.fsync(ballast.fileno())
    async with await open_store(small_disk / "store") as store:
        assert await collect(store.blobs.read(Digest.of(data))) == data
        with pytest.raises(ExhaustedError):
            await store.blobs.put(stream([noise(100_000, "no room")]))


async def test_a_new_store_on_a_full_disk_is_an_error(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(SIZE_MIB * 1024 * 1024 - 4096))
    with pytest.raises(ExhaustedError):
        await open_store(small_disk / "store")

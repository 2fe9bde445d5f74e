"""A pack is never closed under its reader: the number of a closed descriptor is given to the next file that anybody opens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tvix_store.backends.local import open_store, pack_reader
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import Place
from tvix_store.model.digest import Digest
from tvix_store.testing.content import noise

BLOB = noise(2_000, "read while it is closed")


@pytest.fixture
async def stored(tmp_path: Path) -> tuple[Path, Place]:
    """The packs of a store, and where the blob lies."""
    async with await open_store(tmp_path / "store") as store:
        await store.blobs.put_many([BLOB])
    engine = Engine.acquire(tmp_path / "store", {})
    try:
        place = engine.index.chunk(Digest.of(BLOB).raw)
        assert place is not None
        return tmp_path / "store/packs", place
    finally:
        engine.release()


@pytest.mark.parametrize(("call", "read"), [("pread", PackReader.read), ("preadv", PackReader.read_if_cached)])
def test_a_pack_that_is_closed_while_it_is_read_stays_open_for_that(
    stored: tuple[Path, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, read: Callable[..., bytes | None]
) -> None:
    packs, place = stored
    reader = PackReader(packs, Durability(tmp_path))
    assert reader.read(place) == BLOB  # from now on, the pack is open
    reads, is_closed = threading.Event(), threading.Event()
    real: Callable[..., Any] = getattr(os, call)

    def wait_and_read(*arguments: Any) -> Any:
        reads.set()
        assert is_closed.wait(10)
        return real(*arguments)

    monkeypatch.setattr(pack_reader.os, call, wait_and_read)  # type: ignore[attr-defined]
    (tmp_path / "other").write_bytes(bytes(place.offset + 2 * place.stored))
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(1) as executor:
        result = executor.submit(read, reader, place)
        assert reads.wait(10)
        reader.close()
        others = [(tmp_path / "other").open("rb") for _ in range(20)]
        is_closed.set()
        assert result.result() == BLOB
    for other in others:
        other.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # and then it is closed


def test_packs_beyond_those_that_are_kept_open_are_closed_after_each_read(
    stored: tuple[Path, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_reader, "_OPEN_PACKS", 0)
    packs, place = stored
    reader = PackReader(packs, Durability(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    assert [reader.read(place) for _ in range(3)] == [BLOB] * 3
    assert len(os.listdir("/proc/self/fd")) == before

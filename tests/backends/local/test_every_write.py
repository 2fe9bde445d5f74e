"""A power cut at every write of a short history, several times at each: what is left is what the oracle says."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.backends.local.simulated_disk import NoSyncs, SimulatedDisk
from tvix_store.backends.local import checkpointer, open_index, open_store
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.checkpoint import FILE as CHECKPOINT
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import UNIQUE_BYTES
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import Kind
from tvix_store.errors import StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, pieces

CUTS = int(os.environ.get("TVIX_STORE_TEST_CUTS", "5"))
ROUNDS = 6


class Oracle:
    """What was told to the caller, and what must not be there."""

    def __init__(self) -> None:
        self.durable: list[tuple[bytes, bytes]] = []
        """Records that lead to blobs."""
        self.pending: list[tuple[bytes, bytes]] = []
        self.refused: list[bytes] = []
        """Chunks that were staged and never accepted."""
        self.forgotten: list[Place] = []
        self.damaged: list[Place] = []
        """Where somebody has flipped bits, so that it may be found damaged."""


def check(copy: Path, oracle: Oracle, durable: Sequence[tuple[bytes, bytes]], forgotten: Sequence[Place]) -> None:
    engine = Engine(copy, {}, 0, NoSyncs(copy))  # not by `acquire`, whose lock the store under test may hold
    try:
        blobs = LocalBlobs(engine)
        for key, blob in durable:
            assert engine.index.record(key) == blob
            keys = list(blobs.chunk_keys(Digest(blob)))
            places = engine.index.chunks_at(keys)
            content = b"".join(engine.payload(key, place) for key, place in zip(keys, places, strict=True) if place)
            assert blake3(content).digest() == blob
        with engine.index.reading() as txn:
            chunks = list(engine.index.contents(txn, Kind.CHUNK))
            lists = {segment.key[:32] for segment in engine.index.contents(txn, Kind.CHUNK_LIST)}
            assert engine.index.counter(txn, UNIQUE_BYTES) == sum(chunk.place.length for chunk in chunks)
        assert not {chunk.place for chunk in chunks}.intersection(forgotten)
        for chunk in chunks:
            if chunk.place in oracle.damaged:
                continue
            assert blake3(engine.payload(chunk.key, chunk.place)).digest() == chunk.key
        for blob in lists:
            assert blake3(b"".join(p for group in blobs._groups(Digest(blob), 0, None) for p in group)).digest() == blob
        assert not {chunk.key for chunk in chunks}.intersection(oracle.refused)
    finally:
        engine._close()


async def history(store: Store, oracle: Oracle, directory: Path) -> None:
    """All kinds of puts, one after the other."""
    assert store.records is not None
    assert store.staging is not None
    for number in range(ROUNDS):
        small = noise(300 + number, f"small {number}")
        large = noise(40_000, f"large {number}")
        await store.blobs.put_many([small, noise(100, f"loose {number}")])
        digest = await store.blobs.put(pieces(large, 10_000))
        await store.records.put({b"loose %d" % number: digest.raw}, durable=False)
        await store.records.put({b"large %d" % number: digest.raw})
        oracle.durable.append((b"large %d" % number, digest.raw))
        info = PathInfo(StorePath(bytes([number]) * 20, "p"), FileNode(digest, len(large)), NarFacts(1, bytes(32)))
        await store.path_infos.put(info)
        refused, accepted = noise(3000, f"refused {number}"), noise(30_000, f"accepted {number}")
        oracle.refused.append(Digest.of(refused).raw)
        stage = store.staging.begin()
        await stage.blobs.put_many([refused])
        await stage.close()
        stage = store.staging.begin()
        staged = await stage.blobs.put(pieces(accepted, 7_000))
        await stage.accept()
        await stage.close()
        await store.records.put({b"staged %d" % number: staged.raw})
        oracle.durable.append((b"staged %d" % number, staged.raw))
        if number % 2:
            await forget(store, oracle, directory, small)
        await asyncio.sleep(0.03)  # a checkpoint


async def forget(store: Store, oracle: Oracle, directory: Path, content: bytes) -> None:
    """Damage a chunk, read it, and put it again."""
    engine = Engine.acquire(directory, {})
    try:
        place = engine.index.chunk(Digest.of(content).raw)
        assert place is not None
        oracle.damaged.append(place)
        with (directory / f"packs/{place.pack:08x}.pack").open("r+b") as pack:
            pack.seek(place.offset)
            pack.write(bytes(10))
        with pytest.raises(StoreError):
            await store.blobs.get_many([Digest.of(content)])
        await store.sync()
        assert engine.index.chunk(Digest.of(content).raw) is None
        oracle.forgotten.append(place)
    finally:
        engine.release()
    await store.blobs.put_many([content])
    assert store.records is not None
    key = b"again %d" % len(oracle.durable)
    await store.records.put({key: Digest.of(content).raw})
    oracle.durable.append((key, Digest.of(content).raw))


@pytest.mark.timeout(900)
async def test_a_cut_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_IDLE_AFTER": 0.01, "_TICK": 0.005, "_REST": 0.0}.items():
        monkeypatch.setattr(checkpointer, name, value)
    directory, oracle, generator = tmp_path / "store", Oracle(), random.Random(1)
    disk = SimulatedDisk(tmp_path / "disk")
    one_at_a_time = threading.Lock()
    states = 0
    failures: list[str] = []

    def cut() -> None:
        nonlocal states
        with one_at_a_time:
            for _ in range(CUTS):
                durable, forgotten = list(oracle.durable), list(oracle.forgotten)
                copy = tmp_path / f"copy {states}"
                states += 1
                disk.after_a_cut(directory, copy, generator)
                try:
                    if (copy / "settings.json").exists() or durable:
                        check(copy, oracle, durable, forgotten)
                    shutil.rmtree(copy)
                except Exception:  # noqa: BLE001 - in a thread of the store, which would take it for its own
                    failures.append(f"{copy}: {traceback.format_exc()}")

    def anew(store: Path, *arguments: Any) -> Index:
        # Before the first checkpoint there is nothing to go back to. Later, it would take long in a large store.
        assert not (store / CHECKPOINT).exists()
        return make_anew(store, *arguments)

    make_anew = open_index.make_anew
    monkeypatch.setattr(open_index, "make_anew", anew)
    sync, append = disk.sync, PackWriter.append

    def sync_and_cut(path: Path | str) -> None:
        sync(path)
        cut()

    monkeypatch.setattr(disk, "sync", sync_and_cut)

    def append_and_cut(writer: PackWriter, records: object) -> object:
        places = append(writer, records)  # type: ignore[arg-type]
        if writer._directory == directory / "packs":
            cut()
        return places

    monkeypatch.setattr(PackWriter, "append", append_and_cut)
    async with await open_store(directory, chunk_average=4096, durability=disk) as store:
        await history(store, oracle, directory)
    assert not failures, failures[0]
    assert states >= 180 * CUTS

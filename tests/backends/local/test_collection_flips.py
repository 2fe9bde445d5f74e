"""Random flips of bits in packs and index of a store whose content is condemned and deleted."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.backends.local.test_collection import GRACE, Files, collect_garbage, put_path, remove
from tvix_store.backends.local import open_store
from tvix_store.errors import StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise

FLIPS = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_FLIPS", "12"))
"""Stores, each with one flip or a few."""


def flip(path: Path, generator: random.Random) -> None:
    at = generator.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        [there] = file.read(1)
        file.seek(at)
        file.write(bytes([there ^ 1 << generator.randrange(8)]))


@pytest.mark.timeout(36_000)
async def test_flipped_bits_of_a_store_that_is_collected(tmp_path: Path) -> None:
    """Wrong bytes are never served. Content that was not hit, and is needed, stays. What was hit counts as missing."""
    whole = tmp_path / "whole"
    shared: Files = {b"shared": noise(20_000, "shared"), b"sub": {b"small": b"small"}}
    async with await open_store(whole, chunk_average=4096) as store:
        kept = [await put_path(store, f"kept-{n}", {**shared, b"own": noise(20_000, f"kept {n}")}) for n in range(6)]
        gone = [await put_path(store, f"gone-{n}", {**shared, b"own": noise(40_000, f"gone {n}")}) for n in range(3)]
        await remove(store, *gone)
        await collect_garbage(store, GRACE)
        kept += [await put_path(store, f"new-{n}", {**shared, b"own": noise(20_000, f"new {n}")}) for n in range(6)]
    generator = random.Random(3)
    refused = damaged = lost = 0
    for number in range(FLIPS):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        files = sorted((copy / "packs").iterdir()) + sorted((copy / "index").glob("*.mdb"))
        sizes = [file.stat().st_size for file in files]
        for _ in range(1 + number % 3):
            flip(generator.choices(files, sizes)[0], generator)
        async with await open_store(copy) as store:
            before = {info: await served(store, info.node.digest) for info in kept}  # type: ignore[union-attr]
            for later in (2 * GRACE, 4 * GRACE):
                try:
                    await collect_garbage(store, 0, later=later)
                except StoreError:
                    refused += 1
            after = {info: await served(store, info.node.digest) for info in kept}  # type: ignore[union-attr]
            for info in kept:
                damaged += not before[info]
                lost += before[info] and not after[info]
        async with await open_store(copy) as store:
            for info in kept:
                lost += after[info] and not await served(store, info.node.digest)  # type: ignore[union-attr]
        shutil.rmtree(copy)
    assert lost == 0
    print(f"{FLIPS} stores: {refused} collections refused, {damaged} paths hit, {lost} others lost")


async def served(store: Store, root: Digest) -> bool:
    """Whether all of a tree is given out; what is given out is right."""
    try:
        async for directory in store.directories.get_recursive(root):
            for node in directory.entries.values():
                if isinstance(node, FileNode):
                    assert Digest.of(await collect(store.blobs.read(node.digest))) == node.digest
    except StoreError:
        return False
    return True

"""A bucket that snix made (2025-12) is read, and ours has the same form."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from tests.programs import ROOT
from tvix_store.config import open_store
from tvix_store.errors import NoStoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.model.path_info import NarFacts
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_file, stream

MADE = ROOT / "tests/vectors/snix/bucket.tar.xz"
TREE = DirectoryNode(Digest.parse("bgsK6sWH65vfWrj11dj406OCSLMeIaHVoFT/GinlVck="), 28)
NAR = NarFacts(719760, bytes.fromhex("726621a0b9d0c640bbf5b03af5b90a07eddb4fb0069897a95b928f6a719e88bc"))


@pytest.fixture
def made(memory_path: Path) -> Path:
    with tarfile.open(MADE) as tar:
        tar.extractall(memory_path / "made", filter="data")
    return memory_path / "made"


def content(path: Path) -> bytes:
    """What an object has, which may be compressed."""
    data = path.read_bytes()
    if "blobs/" in str(path):
        return data
    assert zstandard.get_frame_parameters(data).content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert not zstandard.get_frame_parameters(data).has_checksum
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def directories(tree: bytes) -> list[bytes]:
    """The directories in the object of a tree, whose order is free but for what a root needs."""
    found: list[bytes] = []
    while tree:
        size = 4 + int.from_bytes(tree[:4])
        found.append(tree[4:size])
        tree = tree[size:]
    return found


def objects(bucket: Path) -> dict[str, bytes]:
    """The objects that snix knows, with their contents."""
    files = (each for folder in ("blobs", "chunks", "dirs") for each in (bucket / folder).rglob("*") if each.is_file())
    return {str(file.relative_to(bucket)): content(file) for file in files}


async def copy(source: Store, target: Store) -> None:
    directories = [each async for each in source.directories.get_recursive(TREE.digest)]
    for directory in directories:
        for node in directory.entries.values():
            if isinstance(node, FileNode):
                assert await target.blobs.put(source.blobs.read(node.digest)) == node.digest
    assert await target.directories.put(stream(directories[::-1])) == TREE.digest


async def test_a_tree_that_snix_has_put_is_read_and_the_bucket_stays_as_it_was(made: Path) -> None:
    before = objects(made)
    async with await open_store(f"objectstore+file://{made}", create=False) as store:
        assert await store.nar.calculate(TREE) == NAR
    assert objects(made) == before
    assert not (made / "tvix-store.json").exists()


async def test_a_bucket_of_snix_becomes_a_store_and_stays_one_of_snix(made: Path) -> None:
    before = objects(made)
    async with await open_store(f"objectstore+file://{made}") as store:
        node = await put_file(store.blobs, noise(300_000, "more"))
    after = objects(made)
    assert before.items() <= after.items()
    assert f"blobs/b3/{node.digest.hex[:4]}/{node.digest.hex}" in after
    async with await open_store(f"objectstore+file://{made}", create=False) as store:
        assert await store.nar.calculate(TREE) == NAR


async def test_what_we_write_has_the_form_of_snix(made: Path, memory_path: Path) -> None:
    ours = memory_path / "ours"
    async with (
        await open_store(f"objectstore+file://{made}", create=False) as source,
        await open_store(f"objectstore+file://{ours}?layout=snix") as target,
    ):
        await copy(source, target)
    [tree] = [name for name in objects(made) if name.startswith("dirs/")]
    written, expected = objects(ours), objects(made)
    assert sorted(directories(written.pop(tree))) == sorted(directories(expected.pop(tree)))
    assert written == expected


async def test_a_chunk_that_some_version_of_snix_has_put_elsewhere_is_found(made: Path) -> None:
    (made / "chunks").rename(made / "chunk")
    async with await open_store(f"objectstore+file://{made}", create=False) as store:
        assert await store.nar.calculate(TREE) == NAR


async def test_a_directory_with_something_else_is_no_bucket(memory_path: Path) -> None:
    (memory_path / "letters").mkdir()
    with pytest.raises(NoStoreError, match="neither empty nor a store"):
        await open_store(f"objectstore+file://{memory_path}")
    with pytest.raises(NoStoreError, match="it is no directory"):
        await open_store(f"objectstore+file://{memory_path}/absent", create=False)
    assert os.listdir(memory_path) == ["letters"]  # which is no call for the event loop either


async def test_a_tree_below_a_root_gets_an_object_of_its_own_when_it_is_a_root(memory_path: Path) -> None:
    """Else snix would not find it."""
    address = f"objectstore+file://{memory_path}/bucket?layout=snix"
    async with await open_store(address) as store:
        low = await put_file(store.blobs, b"in it")
        inner = Directory({b"file": low})
        await store.directories.put(stream([inner, Directory({b"inner": inner.node()})]))
    place = memory_path / "bucket/dirs/b3" / inner.digest.hex[:4] / inner.digest.hex
    assert not place.exists()
    async with await open_store(address) as store:
        await store.nar.calculate(inner.node())
    assert content(place) == len(inner.encoded).to_bytes(4) + inner.encoded
    async with await open_store(address) as store:
        assert await collect(store.blobs.read(low.digest)) == b"in it"

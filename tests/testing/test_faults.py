"""Faults happen when they are to, and not before."""

import time

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode
from tvix_store.testing.content import collect, noise, pieces, put_tree, stream
from tvix_store.testing.faults import FaultyBlobs, FaultyDirectories, cutting, delaying, failing, faulty, flipping

DATA = noise(2_000_000)


async def test_a_failing_service_fails_for_good_after_what_it_lets_pass() -> None:
    store = await open_store()
    digest = await store.blobs.put(pieces(DATA, 100_000))
    blobs = FaultyBlobs(store.blobs, failing(UnavailableError("gone"), after=2))
    reading = blobs.read(digest)
    assert DATA.startswith(await anext(reading))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="gone"):
            await blobs.stat(digest)


async def test_a_flipping_service_damages_one_bit_of_each_piece() -> None:
    store = await open_store()
    digest = await store.blobs.put(stream([b"ab"]))
    blobs = FaultyBlobs(store.blobs, flipping())
    assert await collect(blobs.read(digest)) == b"`b"
    assert await blobs.get_many([digest]) == [b"`b"]
    assert await blobs.put_many([b"ab"]) == [Digest.of(b"`b")]


async def test_a_cutting_service_ends_streams_and_batches_early() -> None:
    store = await open_store()
    digests = await store.blobs.put_many([b"a", b"b"])
    assert await FaultyBlobs(store.blobs, cutting()).get_many(digests) == []
    assert await FaultyBlobs(store.blobs, cutting(after=2)).get_many(digests) == [b"a"]
    assert await FaultyBlobs(store.blobs, cutting(after=2)).put(stream([b"a", b"b"])) == digests[0]
    assert await FaultyBlobs(store.blobs, cutting()).stat(digests[0]) is not None


async def test_a_cutting_service_sends_only_the_first_directories() -> None:
    store = await open_store()
    root = await put_tree(store, {b"a": {b"b": {}}})
    assert isinstance(root, DirectoryNode)
    directories = FaultyDirectories(store.directories, cutting(after=2))
    assert [directory.digest async for directory in directories.get_recursive(root.digest)] == [root.digest]


async def test_a_delaying_service_takes_its_time() -> None:
    store = faulty(await open_store(), delaying(0.02))
    before = time.monotonic()
    assert [info async for info in store.path_infos.list()] == []
    assert time.monotonic() - before >= 0.02

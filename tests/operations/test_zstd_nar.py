"""A NAR as zstd from stored frames: decompressed it is the NAR; nothing damaged is given out."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings

from tvix_store.backends.local import open_store
from tvix_store.errors import CorruptError, InvalidError, NotFoundError
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.operations.plan_zstd_nar import MAX_ENTRIES, MAX_NAR, can_be_planned
from tvix_store.operations.render_nar import render_nar
from tvix_store.operations.zstd_nar import ZstdNars
from tvix_store.operations.zstd_plan import Plan
from tvix_store.services.store import Store
from tvix_store.testing import strategies
from tvix_store.testing.content import collect, missing, noise, put_tree
from tvix_store.testing.trees import Tree, TreeFile

TEXT = b"a text that compresses well; " * 100_000
MIXED: Tree = {
    b"a": {b"%03d" % n: TreeFile(b"small %d" % n * n, executable=bool(n % 2)) for n in range(200)},
    b"b": {b"again": TreeFile(b"small 7" * 7), b"empty": TreeFile(b""), b"no": {}},
    b"noise": TreeFile(noise(5_000_000, "zstd")),
    b"same noise": TreeFile(noise(5_000_000, "zstd")),
    b"text": TreeFile(TEXT),
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        yield store


def nars(store: Store) -> ZstdNars:
    assert store.frames is not None
    return ZstdNars(store.directories, store.frames)


async def whole(zstd: ZstdNars, node: Node) -> bytes:
    plan = await zstd.plan(node)
    data = await collect(zstd.read(node, plan, 0, plan.size))
    assert len(data) == plan.size
    return data


def decompressed(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


async def nar(store: Store, node: Node) -> bytes:
    return await collect(render_nar(store.blobs, store.directories, node))


async def settled(zstd: ZstdNars) -> None:
    await asyncio.gather(*zstd._tasks)


@given(tree=strategies.trees())
@settings(max_examples=40, deadline=None)
def test_decompressed_it_is_the_nar(tree: Tree) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with await open_store(Path(directory) / "store", chunk_average=4096) as store:
                node = await put_tree(store, tree)
                assert decompressed(await whole(nars(store), node)) == await nar(store, node)

    asyncio.run(check())


async def test_a_plan_costs_what_it_holds_until_it_was_checked(store: Store) -> None:
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    plan = await zstd.plan(node)
    chunks = sum(len(piece.frames) for piece in plan.pieces)
    before = plan.cost
    await whole(zstd, node)
    assert before == plan.cost + 400 * chunks
    assert plan.cost < before / 2


async def test_all_readers_get_the_same_bytes(store: Store) -> None:
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    first = await whole(zstd, node)
    assert decompressed(first) == await nar(store, node)
    assert await whole(zstd, node) == first, "with the plan in memory"
    await settled(zstd)
    another = nars(store)
    assert (await another.plan(node)).is_checked, "the plan was kept by the store"
    assert await whole(another, node) == first
    assert (await another.plan(node)).etag == (await zstd.plan(node)).etag


async def test_any_range_is_that_part_of_the_file(store: Store) -> None:
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    plan = await zstd.plan(node)
    cuts = [0, 1, 1000, (1 << 20) - 1, 1 << 20, plan.size // 2, plan.size - 1, plan.size]
    ranges = [(start, stop) for start in cuts for stop in cuts if start < stop]
    got = [await collect(zstd.read(node, plan, start, stop)) for start, stop in ranges]
    data = await whole(zstd, node)
    assert got == [data[start:stop] for start, stop in ranges]


async def test_a_part_is_not_enough_to_keep_a_plan(store: Store) -> None:
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    plan = await zstd.plan(node)
    await collect(zstd.read(node, plan, 10, plan.size // 3))
    await settled(zstd)
    assert not (await nars(store).plan(node)).is_checked


def flip_a_bit(store_directory: Path, needle: bytes) -> None:
    for pack in (store_directory / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        at = data.find(needle)
        if at >= 0:
            data[at] ^= 1
            pack.write_bytes(data)
            return
    raise AssertionError("not stored as it is")


@pytest.mark.parametrize("times_read", [0, 1, 2])
async def test_a_flipped_bit_is_an_error(store: Store, tmp_path: Path, times_read: int) -> None:
    """Before the first reader, when a plan is in memory, and when it comes from the store."""
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    for _ in range(times_read):
        await whole(zstd, node)
        await settled(zstd)
    if times_read == 2:
        zstd = nars(store)
    flip_a_bit(tmp_path / "store", noise(5_000_000, "zstd")[3_000_000:3_000_050])
    given_out = bytearray()
    plan = await zstd.plan(node)

    async def read() -> None:
        async for piece in zstd.read(node, plan, 0, plan.size):
            given_out.extend(piece)

    with pytest.raises(CorruptError):
        await read()
    assert 0 < len(given_out) < plan.size
    with pytest.raises((CorruptError, NotFoundError)):  # what was found damaged is forgotten soon
        await whole(zstd, node)


async def test_what_is_behind_the_damage_can_still_be_read(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, MIXED)
    flip_a_bit(tmp_path / "store", noise(5_000_000, "zstd")[:50])
    zstd = nars(store)
    plan = await zstd.plan(node)
    assert await collect(zstd.read(node, plan, plan.size - 100, plan.size))


async def test_missing_content_is_told_before_anything_is_given_out(store: Store) -> None:
    with pytest.raises(NotFoundError):
        await nars(store).plan(FileNode(missing(), 5))


async def test_a_node_that_lies_about_a_size_is_refused(store: Store) -> None:
    [digest] = await store.blobs.put_many([b"12345"])
    with pytest.raises(InvalidError, match="is not 6 bytes long"):
        await nars(store).plan(FileNode(digest, 6))


async def test_a_plan_is_read_as_it_was_written(store: Store) -> None:
    node = await put_tree(store, MIXED)
    zstd = nars(store)
    await whole(zstd, node)
    plan = await zstd.plan(node)
    encoded = plan.encode()
    assert Plan.decode(encoded) == plan
    for damaged in (b"", encoded[:10], encoded[: len(encoded) // 2], b"x" + encoded[1:], encoded[:4] + b"\x02" + encoded[5:]):
        with pytest.raises(CorruptError):
            Plan.decode(damaged)


def test_what_is_too_large_is_known_before() -> None:
    file = FileNode(missing(), 5)
    assert can_be_planned(file, MAX_NAR)
    assert not can_be_planned(file, MAX_NAR + 1)
    assert can_be_planned(DirectoryNode(missing(), MAX_ENTRIES), 1)
    assert not can_be_planned(DirectoryNode(missing(), MAX_ENTRIES + 1), 1)

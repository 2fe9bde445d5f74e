"""A NAR, and its zstd file, from stored frames: it is what rendering makes; nothing damaged is given out."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings

from tvix_store.backends.local import open_store
from tvix_store.errors import CorruptError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.plan import Plan
from tvix_store.operations.nars.planner import MAX_ENTRIES, MAX_NAR, can_be_planned, is_worth_a_plan
from tvix_store.operations.nars.render import render_nar
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
    b"of two halves": TreeFile(noise(2_000, "compressible") * 2),
    b"text": TreeFile(TEXT),
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        yield store


def nars(store: Store) -> PlannedNars:
    assert store.frames is not None
    return PlannedNars(store, store.frames)


async def whole(planned: PlannedNars, node: Node) -> bytes:
    plan = await planned.plan(node)
    data = await collect(planned.read(node, plan, 0, plan.size))
    assert len(data) == plan.size
    return data


async def whole_zstd(planned: PlannedNars, node: Node) -> bytes:
    plan = await planned.plan(node)
    data = await collect(planned.read_zstd(node, plan, 0, plan.zstd_size))
    assert len(data) == plan.zstd_size
    return data


def decompressed(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


async def nar(store: Store, node: Node) -> bytes:
    return await collect(render_nar(store.blobs, store.directories.tree(node)))


async def settled(zstd: PlannedNars) -> None:
    await asyncio.gather(*zstd._tasks)


@given(tree=strategies.trees())
@settings(max_examples=40, deadline=None)
def test_it_is_the_nar_and_so_is_what_the_zstd_file_holds(tree: Tree) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with await open_store(Path(directory) / "store", chunk_average=4096) as store:
                node = await put_tree(store, tree)
                expected = await nar(store, node)
                planned = nars(store)
                assert await whole(planned, node) == expected, "while it is checked"
                assert await whole(planned, node) == expected
                assert decompressed(await whole_zstd(planned, node)) == expected
                assert decompressed(await whole_zstd(nars(store), node)) == expected

    asyncio.run(check())


async def test_a_plan_costs_what_it_holds_until_it_was_checked(store: Store) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    plan = await planned.plan(node)
    assert plan.cost > sum(len(piece.items) + len(piece.run) + len(piece.literals) + len(piece.extents) for piece in plan.pieces)
    assert sum(len(list(piece.chunks)) for piece in plan.pieces) > 200
    await whole(planned, node)
    assert not [chunk for piece in plan.pieces for chunk in piece.chunks]


async def test_all_readers_get_the_same_bytes(store: Store) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    first = await whole_zstd(planned, node)
    expected = await nar(store, node)
    assert decompressed(first) == expected
    assert await whole_zstd(planned, node) == first, "with the plan in memory"
    assert await whole(planned, node) == expected
    await settled(planned)
    another = nars(store)
    assert (await another.plan(node)).is_checked, "the plan was kept by the store"
    assert await whole_zstd(another, node) == first
    assert await whole(another, node) == expected
    assert await another.etag(await another.plan(node)) == await planned.etag(await planned.plan(node))


async def test_any_range_is_that_part(store: Store) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    plan = await planned.plan(node)
    for size, read, read_whole in (
        (plan.size, planned.read, whole),
        (plan.zstd_size, planned.read_zstd, whole_zstd),
    ):
        cuts = [0, 1, 1000, (1 << 20) - 1, 1 << 20, 2 << 20, size // 2, size - 1, size]
        ranges = [(start, stop) for start in cuts for stop in cuts if start < stop]
        for _ in range(2):  # while it is checked, and after that
            got = [await collect(read(node, plan, start, stop)) for start, stop in ranges]
            data = await read_whole(planned, node)
            assert got == [data[start:stop] for start, stop in ranges]


async def test_a_part_of_the_middle_is_not_taken_for_all(store: Store) -> None:
    """As much is left out at the begin as at the end. The NAR is one piece."""
    node = await put_tree(store, {b"file": TreeFile(noise(1000, "middle"))})
    planned = nars(store)
    plan = await planned.plan(node)
    assert len(plan.pieces) == 1
    for left_out in (0, 1, 100, plan.size // 2 - 1):
        got = await collect(planned.read(node, plan, left_out, plan.size - left_out))
        assert got == (await nar(store, node))[left_out : plan.size - left_out]


async def test_a_plan_is_known_once_it_was_made(store: Store) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    assert await planned.known(node) is None
    plan = await planned.plan(node)
    assert await planned.known(node) is plan
    await whole(planned, node)
    await settled(planned)
    assert await nars(store).known(node) == plan


async def test_a_part_is_not_enough_to_keep_a_plan(store: Store) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    plan = await planned.plan(node)
    await collect(planned.read(node, plan, 10, plan.size // 3))
    await settled(planned)
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


@pytest.mark.parametrize("damaged", [noise(5_000_000, "zstd")[3_000_000:3_000_050], noise(2_000, "compressible") * 2])
@pytest.mark.parametrize("times_read", [0, 1, 2])
@pytest.mark.parametrize("is_zstd", [False, True])
async def test_a_flipped_bit_is_an_error(store: Store, tmp_path: Path, damaged: bytes, times_read: int, is_zstd: bool) -> None:
    """Before the first reader, when a plan is in memory, and when it comes from the store."""
    node = await put_tree(store, MIXED)
    planned = nars(store)
    for _ in range(times_read):
        await whole(planned, node)
        await settled(planned)
    if times_read == 2:
        planned = nars(store)
    flip_a_bit(tmp_path / "store", damaged[:50])
    given_out = bytearray()
    plan = await planned.plan(node)
    pieces = planned.read_zstd(node, plan, 0, plan.zstd_size) if is_zstd else planned.read(node, plan, 0, plan.size)

    async def read() -> None:
        async for piece in pieces:
            given_out.extend(piece)

    with pytest.raises(CorruptError):
        await read()
    assert 0 < len(given_out) < plan.size
    with pytest.raises((CorruptError, NotFoundError)):  # what was found damaged is forgotten soon
        await whole(planned, node)


async def test_a_nar_whose_content_was_stored_again_elsewhere_is_read_on(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, MIXED)
    planned = nars(store)
    expected = await whole(planned, node)
    await settled(planned)
    flip_a_bit(tmp_path / "store", noise(5_000_000, "zstd")[3_000_000:3_000_050])
    with pytest.raises(CorruptError):  # a reader of the blob finds it
        await collect(store.blobs.read(Digest.of(noise(5_000_000, "zstd"))))
    await store.sync()
    await put_tree(store, MIXED)
    assert await whole(planned, node) == expected
    assert await whole(nars(store), node) == expected


@pytest.mark.parametrize("is_zstd", [False, True])
async def test_a_plan_is_made_anew_after_content_was_stored_again_in_other_bytes(
    store: Store, tmp_path: Path, is_zstd: bool
) -> None:
    """By who has it in memory, and by who takes it from the store."""
    read = whole_zstd if is_zstd else whole
    text = b" ".join(b"word number %d" % byte for byte in noise(5_000, "words"))
    tree: Tree = {b"mixed": MIXED, b"words": TreeFile(text)}
    node = await put_tree(store, tree)
    planned = nars(store)
    expected = await nar(store, node)
    await read(planned, node)
    await settled(planned)
    engine = store.blobs._engine  # type: ignore[attr-defined]
    place = engine.index.chunk(Digest.of(text).raw)
    flip_a_bit(tmp_path / "store", engine.reader.read(place))
    with pytest.raises(CorruptError):
        await collect(store.blobs.read(Digest.of(text)))
    await store.sync()
    engine.settings = replace(engine.settings, compression_level=19)  # as a newer compressor may do it
    await put_tree(store, tree)
    other = nars(store)
    for each in (planned, other):
        assert (await each.plan(node)).is_checked
    for each in (planned, other):
        with pytest.raises(CorruptError, match="stored anew"):
            await read(each, node)
        await settled(each)
    for each in (planned, other, nars(store)):
        data = await read(each, node)
        assert (decompressed(data) if is_zstd else data) == expected
        await settled(each)
    assert (await nars(store).plan(node)).is_checked


async def test_what_is_behind_the_damage_can_still_be_read(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, MIXED)
    flip_a_bit(tmp_path / "store", noise(5_000_000, "zstd")[:50])
    planned = nars(store)
    plan = await planned.plan(node)
    assert await collect(planned.read(node, plan, plan.size - 100, plan.size))
    assert await collect(planned.read_zstd(node, plan, plan.zstd_size - 100, plan.zstd_size))


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
    for damaged in (b"", encoded[:10], encoded[: len(encoded) // 2], encoded[:-1], encoded + b"x", b"x" + encoded[1:]):
        with pytest.raises(CorruptError):
            Plan.decode(damaged)
    assert Plan.decode(encoded[:4] + b"\x01" + encoded[5:]) is None, "of another version"


def test_what_is_too_large_is_known_before() -> None:
    file = FileNode(missing(), 5)
    assert can_be_planned(file, MAX_NAR)
    assert not can_be_planned(file, MAX_NAR + 1)
    assert can_be_planned(DirectoryNode(missing(), MAX_ENTRIES), 1)
    assert not can_be_planned(DirectoryNode(missing(), MAX_ENTRIES + 1), 1)


def test_a_plan_is_worth_it_for_trees_of_small_files() -> None:
    tree = DirectoryNode(missing(), 1000)
    assert is_worth_a_plan(tree, 20_000_000)
    assert not is_worth_a_plan(tree, 1 << 30), "large files"
    assert not is_worth_a_plan(DirectoryNode(missing(), MAX_ENTRIES + 1), 20_000_000)
    assert not is_worth_a_plan(FileNode(missing(), 5), 120)

"""Any range of a NAR is rendered from the middle, and is the same bytes as in the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.nar import tokens
from tvix_store.operations.nars import seek
from tvix_store.operations.nars.seek import NarLayouts
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, nested, noise, put_file, put_tree, stream
from tvix_store.testing.faults import FaultyBlobs, FaultyDirectories, delaying
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile, nar

MIB = 1 << 20
VARIED: Tree = {
    b"empty": {},
    b"large": TreeFile(noise(MIB + 5)),
    b"many": {b"%03d" % n: TreeFile(noise(n * 7), executable=bool(n % 2)) for n in range(300)},
    b"nested": {b"a": {b"b": {b"c": {b"d": TreeFile(b"deep"), b"to": SymlinkNode(b"../../nowhere")}}}},
    b"program": TreeFile(noise(300_000), executable=True),
}


async def part(store: Store, node: Node, start: int, stop: int) -> bytes:
    return await collect(NarLayouts(store.blobs).render_range(store.directories.tree(node), start, stop))


@settings(max_examples=200)
@given(trees(), st.data())
def test_any_range_of_any_tree_is_that_of_its_nar(tree: Tree, data: st.DataObject) -> None:
    whole = nar(tree)
    start = data.draw(st.integers(0, len(whole) + 1))
    stop = data.draw(st.integers(0, len(whole) + 10))

    async def range_of_stored_tree() -> bytes:
        store = await open_store()
        return await part(store, await put_tree(store, tree), start, stop)

    assert asyncio.run(range_of_stored_tree()) == whole[start:stop]


@pytest.mark.parametrize("tree", [VARIED, {}, TreeFile(b"some"), TreeFile(noise(MIB)), SymlinkNode(b"target"), {b"a": {b"b": {}}}])
async def test_a_nar_may_be_cut_anywhere(tree: Tree) -> None:
    store = await open_store()
    node = await put_tree(store, tree)
    whole = nar(tree)
    layouts, handle = NarLayouts(store.blobs), store.directories.tree(node)
    for at in {*range(0, len(whole), max(len(whole) // 50, 1)), len(whole)}:
        first = await collect(layouts.render_range(handle, max(at - 3000, 0), at))
        second = await collect(layouts.render_range(handle, at, at + 3000))
        assert first + second == whole[max(at - 3000, 0) : at + 3000]
    assert await collect(layouts.render_range(handle, 0, len(whole))) == whole


class Watched(FaultyBlobs):
    """Notes which blobs were read, and which parts of them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.blobs, delaying(0))
        self.read_parts: list[tuple[Digest, int, int | None]] = []
        self.batches: list[Digest] = []

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        self.read_parts.append((digest, start, stop))
        return super().read(digest, start, stop)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        self.batches += digests
        return await super().get_many(digests)


async def test_of_large_files_only_the_part_inside_is_read() -> None:
    store = await open_store()
    large = await put_file(store.blobs, noise(3 * MIB))
    root = Directory(dict.fromkeys((b"a", b"b", b"c"), large))
    await store.directories.put(stream([root]))
    blobs = Watched(store)
    begin = len(tokens.MAGIC + tokens.DIRECTORY_START + tokens.entry_start(b"b") + tokens.file_start(3 * MIB, False))
    begin += tokens.entry_size(b"a") + tokens.file_size(3 * MIB, False)
    layouts = NarLayouts(blobs)
    assert await collect(layouts.render_range(store.directories.tree(root.node()), begin + 5, begin + MIB)) == noise(MIB)[5:]
    assert blobs.read_parts == [(large.digest, 5, MIB)]


async def test_small_files_outside_are_not_read() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    at = nar(VARIED).index(b"deep")
    blobs = Watched(store)
    assert await collect(NarLayouts(blobs).render_range(store.directories.tree(node), at, at + 4)) == b"deep"
    assert blobs.read_parts == []
    assert blobs.batches == [Digest.of(b"deep")]


class CountingDirectories(FaultyDirectories):
    """Counts what is read."""

    recursive = 0
    single = 0

    async def get(self, digest: Digest) -> Directory | None:
        self.single += 1
        return await super().get(digest)

    def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        self.recursive += 1
        return super().get_recursive(digest)


async def test_sizes_are_found_out_once() -> None:
    store = await open_store()
    tree: Tree = {b"%02d" % n: {b"x": {b"y": TreeFile(b"%d" % n)}} for n in range(30)}
    node = await put_tree(store, tree)
    directories = CountingDirectories(store.directories, delaying(0))
    layouts = NarLayouts(store.blobs)
    for at in (5000, 5100, 5200):
        assert await collect(layouts.render_range(directories.tree(node), at, at + 50)) == nar(tree)[at : at + 50]
    assert directories.recursive == 1
    directories.single = 0
    assert await collect(layouts.render_range(directories.tree(node), 5200, 5250)) == nar(tree)[5200:5250]
    assert directories.single == 1


@pytest.mark.parametrize("kept", [0, 1, 10])
async def test_what_is_forgotten_is_found_out_again(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(seek, "KEPT_EXTENTS", kept)
    monkeypatch.setattr(seek, "KEPT_ENTRIES", kept)
    store = await open_store()
    tree: Tree = {b"%02d" % n: {b"x": {b"y": TreeFile(b"%d" % n)}} for n in range(20)}
    node = await put_tree(store, tree)
    layouts = NarLayouts(store.blobs)
    for at in range(0, len(nar(tree)), 1000):
        assert await collect(layouts.render_range(store.directories.tree(node), at, at + 1500)) == nar(tree)[at : at + 1500]


async def test_the_end_of_a_tree_ten_thousand_levels_deep_is_rendered() -> None:
    graph = nested(10_000)
    store = await open_store()
    await store.directories.put(stream(graph))
    size = len(tokens.MAGIC) + 10_001 * tokens.DIRECTORY_SIZE + 10_000 * tokens.entry_size(b"d")
    ending = tokens.DIRECTORY_END + (tokens.ENTRY_END + tokens.DIRECTORY_END) * 2
    assert await part(store, graph[-1].node(), size - len(ending), size) == ending


@pytest.mark.timeout(20)
async def test_a_graph_of_exponentially_many_paths_is_refused_at_once() -> None:
    graph = [Directory({})]
    for _ in range(41):
        graph.append(Directory({b"a": graph[-1].node(), b"b": graph[-1].node()}))
    store = await open_store()
    await store.directories.put(stream(graph))
    with pytest.raises(ExhaustedError, match="at most 1099511627776 and 50000000 are calculated"):
        await part(store, graph[-1].node(), 1000, 2000)


async def test_errors_name_what_is_wrong() -> None:
    store = await open_store()
    with pytest.raises(NotFoundError, match=missing().hex):
        await part(store, DirectoryNode(missing(), 1), 0, 10)
    node = await put_tree(store, {b"a": TreeFile(b"x")})
    assert isinstance(node, DirectoryNode)
    with pytest.raises(InvalidError, match="states size 7"):
        await part(store, DirectoryNode(node.digest, 7), 0, 10)
    large = await put_file(store.blobs, noise(MIB))
    for size in (MIB - 1, MIB + 1):
        with pytest.raises(InvalidError, match=str(large.digest)):
            await part(store, FileNode(large.digest, size), 1000, 2 * MIB)

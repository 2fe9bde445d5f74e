"""The size of a NAR is known from the directories alone, and bounded before anything is rendered."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings

from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError
from tvix_store.layers.verifying import VerifyingPathInfos
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.nar import tokens
from tvix_store.operations.nars import size as limits
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.nars.size import nar_size
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, nested, put_tree, stream
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile, nar


async def size_of(store: Store, node: Node) -> int:
    return await nar_size(store.directories.tree(node))


async def put_doubling(store: Store, levels: int) -> DirectoryNode:
    """Tiny directories, each with two references to the one before it: `2**levels` ways lead to the lowest, which is empty."""
    graph = [Directory({})]
    for _ in range(levels):
        graph.append(Directory({b"a": graph[-1].node(), b"b": graph[-1].node()}))
    await store.directories.put(stream(graph))
    return graph[-1].node()


@settings(max_examples=60)
@given(trees())
def test_the_size_of_any_tree_is_that_of_its_nar(tree: Tree) -> None:
    async def size_of_stored_tree() -> int:
        store = await open_store()
        return await size_of(store, await put_tree(store, tree))

    assert asyncio.run(size_of_stored_tree()) == len(nar(tree))


@pytest.mark.parametrize("levels", [0, 1, 10])
async def test_a_shared_directory_counts_as_often_as_it_is_referred_to(levels: int) -> None:
    store = await open_store()
    entries = 2 ** (levels + 1) - 2
    expected = len(tokens.MAGIC) + (entries + 1) * tokens.DIRECTORY_SIZE + entries * tokens.entry_size(b"a")
    node = await put_doubling(store, levels)
    assert await size_of(store, node) == (await calculate_nar(store.blobs, store.directories.tree(node))).size == expected


async def test_a_tree_may_be_ten_thousand_levels_deep() -> None:
    depth = 10_000
    graph = nested(depth)
    store = await open_store()
    await store.directories.put(stream(graph))
    expected = len(tokens.MAGIC) + (depth + 1) * tokens.DIRECTORY_SIZE + depth * tokens.entry_size(b"d")
    assert await size_of(store, graph[-1].node()) == expected


@pytest.mark.timeout(20)
async def test_a_graph_of_exponentially_many_paths_is_refused_at_once() -> None:
    store = await open_store()
    node = await put_doubling(store, 41)
    with pytest.raises(ExhaustedError, match="at most 1099511627776 and 50000000 are calculated"):
        await store.nar.calculate(node)
    info = PathInfo(StorePath(bytes(20), "x"), node, NarFacts(1, bytes(32)))
    with pytest.raises(ExhaustedError):
        await VerifyingPathInfos(store.path_infos, store.nar).put(info)


@pytest.mark.parametrize("below_a_directory", [False, True])
async def test_a_file_larger_than_a_nar_may_be_is_refused_before_it_is_read(below_a_directory: bool) -> None:
    store = await open_store()
    node: Node = FileNode(missing(), limits.MAX_SIZE)
    if below_a_directory:
        root = Directory({b"file": node})
        await store.directories.put(stream([root]))
        node = root.node()
    with pytest.raises(ExhaustedError, match="at most 1099511627776"):
        await calculate_nar(store.blobs, store.directories.tree(node))


async def test_a_tree_at_the_limits_passes_and_one_over_them_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await open_store()
    tree: Tree = {b"a": {b"b": SymlinkNode(b"c")}, b"d": TreeFile(b"e")}
    node = await put_tree(store, tree)
    monkeypatch.setattr(limits, "MAX_ENTRIES", 3)
    monkeypatch.setattr(limits, "MAX_SIZE", len(nar(tree)))
    assert await size_of(store, node) == len(nar(tree))
    monkeypatch.setattr(limits, "MAX_SIZE", len(nar(tree)) - 1)
    with pytest.raises(ExhaustedError):
        await size_of(store, node)
    monkeypatch.undo()
    monkeypatch.setattr(limits, "MAX_ENTRIES", 2)
    with pytest.raises(ExhaustedError):
        await size_of(store, node)

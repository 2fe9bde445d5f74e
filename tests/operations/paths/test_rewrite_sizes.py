"""Directories get the sizes of another rule, and nothing else changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests import vectors
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store
from tvix_store.config import verified
from tvix_store.model.directory import SizeRule
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.paths.rewrite_sizes import rewrite_sizes
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise, put_tree
from tvix_store.testing.strategies import trees as any_tree
from tvix_store.testing.trees import Tree

PATH = StorePath(bytes(20), "tree")


async def put_path(store: Store, tree: Tree, rule: SizeRule) -> PathInfo:
    """A signed path with the tree, which is in the store by a rule."""
    node = await put_tree(replace(store, size_rule=rule), tree)
    signature = Signature("key-1", noise(64))
    return await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node), signatures=(signature,)))


@settings(max_examples=60)
@given(tree=any_tree())
def test_any_tree_gets_the_root_that_it_has_by_the_rule_and_back(tree: Tree) -> None:
    async def check() -> None:
        async with await open_store() as memory:
            store = verified(memory)
            first = await put_path(store, tree, SizeRule.DOCUMENTED)
            for rule in (SizeRule.SNIX, SizeRule.DOCUMENTED):
                known = await store.path_infos.get(PATH.output_hash)
                assert known is not None
                rewritten = await rewrite_sizes(store, known, rule)
                assert rewritten == replace(first, node=trees.castore(tree, rule).root)
                assert await store.path_infos.get(PATH.output_hash) == rewritten
                assert await calculate_nar(store.blobs, store.directories.tree(rewritten.node)) == first.nar
                assert await rewrite_sizes(store, rewritten, rule) == rewritten

    asyncio.run(check())


@pytest.mark.parametrize("vector", vectors.castore(), ids=lambda vector: vector["name"])
async def test_a_tree_of_the_rust_implementation_is_reached_from_the_documented_rule(vector: dict[str, object]) -> None:
    async with await open_store() as store:
        tree = vectors.tree(vector["tree"])  # type: ignore[arg-type]
        documented = await put_path(store, tree, SizeRule.DOCUMENTED)
        rewritten = await rewrite_sizes(store, documented, SizeRule.SNIX)
        assert rewritten.node == trees.castore(tree, SizeRule.SNIX).root


async def test_a_dry_run_stores_nothing(tmp_path: Path) -> None:
    async with await open_local(tmp_path / "store") as store:
        first = await put_path(store, {b"a": {b"b": {}}}, SizeRule.SNIX)
        assert store.statistics is not None
        before = await store.statistics.stats()
        would_be = await rewrite_sizes(store, first, SizeRule.DOCUMENTED, dry_run=True)
        assert would_be.node == trees.castore({b"a": {b"b": {}}}).root
        assert await store.path_infos.get(PATH.output_hash) == first
        assert replace(await store.statistics.stats(), disk_bytes=0) == replace(before, disk_bytes=0)


async def test_a_pushed_nar_is_linked_to_the_new_root(tmp_path: Path) -> None:
    async with await open_local(tmp_path / "store") as store:
        assert store.records is not None
        first = await put_path(store, {b"a": {b"b": {}}}, SizeRule.SNIX)
        links = NarLinks(store.records)
        await rewrite_sizes(store, first, SizeRule.DOCUMENTED)
        assert await links.get(first.nar.sha256) is None
        await links.put(NarLink(first.nar, first.node))
        rewritten = await rewrite_sizes(store, first, SizeRule.DOCUMENTED)
        link = await links.get(first.nar.sha256)
        assert link == NarLink(first.nar, rewritten.node)
        assert isinstance(rewritten.node, DirectoryNode)

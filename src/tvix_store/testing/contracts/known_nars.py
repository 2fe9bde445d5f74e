"""The contract of KnownNars."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.services.nar import KnownNars
from tvix_store.services.store import Store
from tvix_store.testing.content import missing


def known_nars(store: Store) -> KnownNars:
    assert store.known_nars is not None
    return store.known_nars


async def put(store: Store, node: Node, facts: NarFacts) -> None:
    await known_nars(store).put(node, facts, known_nars(store).begin())


@pytest.mark.asyncio
class KnownNarsContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `known_nars` are not None."""

    async def test_facts_are_known_of_exactly_the_node_that_they_were_put_for(self, store: Store) -> None:
        digest = missing("known")
        nodes: list[Node] = [
            FileNode(digest, 1),
            FileNode(digest, 2),
            FileNode(digest, 1, executable=True),
            DirectoryNode(digest, 1),
            SymlinkNode(digest.raw.replace(b"\0", b"\1")),
        ]
        for n, node in enumerate(nodes):
            assert await known_nars(store).get(node) is None
            await put(store, node, NarFacts(n, bytes([n]) * 32))
        assert [await known_nars(store).get(node) for node in nodes] == [NarFacts(n, bytes([n]) * 32) for n in range(len(nodes))]

    async def test_facts_that_are_put_again_take_the_place_of_the_first(self, store: Store) -> None:
        node = FileNode(missing("again"), 1)
        for facts in (NarFacts(1, b"1" * 32), NarFacts(2, b"2" * 32)):
            await put(store, node, facts)
            assert await known_nars(store).get(node) == facts

    async def test_facts_of_many_nodes_may_be_put_at_once(self, store: Store) -> None:
        nodes = [FileNode(missing(f"{n}"), n) for n in range(100)]
        await asyncio.gather(*(put(store, node, NarFacts(node.size, bytes(32))) for node in nodes))
        assert [await known_nars(store).get(node) for node in nodes] == [NarFacts(node.size, bytes(32)) for node in nodes]

    async def test_the_nar_service_answers_from_them(self, store: Store) -> None:
        node, facts = SymlinkNode(b"known"), NarFacts(7, b"7" * 32)  # not true: calculated, they would be others
        await put(store, node, facts)
        assert await store.nar.calculate(node) == facts

    async def test_what_the_nar_service_has_calculated_is_known(self, store: Store) -> None:
        node = SymlinkNode(b"calculated")
        facts = await store.nar.calculate(node)
        assert await known_nars(store).get(node) == facts

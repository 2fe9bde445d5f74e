"""The contract of Staging."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import DirectoryNode, Node
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.staging import Stage, StagedNar
from tvix_store.services.statistics import Stats
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_file, put_tree, stream
from tvix_store.testing.trees import Tree, TreeFile, nar

LARGE = noise(3_000_000, "staged")
STAGED: Mapping[bytes, Tree] = {
    b"large": TreeFile(LARGE),
    b"again": {b"large": TreeFile(LARGE), b"other": TreeFile(LARGE[:1_500_000])},
    b"small": TreeFile(b"small"),
    b"empty": {},
}


@asynccontextmanager
async def begun(store: Store, *, rechecks: bool = False) -> AsyncIterator[Stage]:
    """A stage that is closed at the end."""
    assert store.staging is not None
    stage = store.staging.begin(rechecks=rechecks)
    try:
        yield stage
    finally:
        await stage.close()


async def stage_tree(store: Store, stage: Stage, tree: Tree) -> Node:
    """Put a whole tree by a stage."""
    return await put_tree(store.with_services(blobs=stage.blobs, directories=stage.directories), tree)


async def is_whole(store: Store, node: Node, tree: Tree) -> bool:
    return await collect(render_nar(store.blobs, store.directories.tree(node))) == nar(tree)


async def is_absent(store: Store, node: Node) -> bool:
    """Whether nothing of STAGED is there, but what is there of any."""
    assert isinstance(node, DirectoryNode)
    blobs = [Digest.of(LARGE), Digest.of(LARGE[:1_500_000]), Digest.of(b"small")]
    return await store.directories.get(node.digest) is None and await store.blobs.missing(blobs) == set(blobs)


async def counted(store: Store) -> Stats | None:
    """What a store holds, if it can count."""
    return None if store.statistics is None else await store.statistics.stats()


def is_same(one: Stats | None, other: Stats | None) -> bool:
    """Whether they tell of the same content; a store's own files may take a little more or less."""
    if one is None or other is None:
        return one is other
    return replace(one, disk_bytes=0) == replace(other, disk_bytes=0) and abs(one.disk_bytes - other.disk_bytes) < 64 << 10


@pytest.mark.asyncio
class StagingContract:
    """Subclasses give a fixture `store`: a new, empty store, whose `staging` is not None."""

    async def test_what_is_staged_is_seen_when_it_is_accepted(self, store: Store) -> None:
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            assert await is_absent(store, node)
            await stage.accept()
            assert await is_whole(store, node, STAGED)
        assert await is_whole(store, node, STAGED)

    @pytest.mark.parametrize("tree", [{b"small": TreeFile(b"small")}, STAGED], ids=["small", "large"])
    @pytest.mark.parametrize("rechecks", [False, True])
    async def test_facts_and_records_come_with_the_content(self, store: Store, tree: Tree, rechecks: bool) -> None:
        assert store.records is not None
        facts = NarFacts(1234, b"n" * 32)  # not true: calculated, they would be others
        async with begun(store, rechecks=rechecks) as stage:
            node = await stage_tree(store, stage, tree)
            assert await store.records.get(b"test:link") is None
            with pytest.raises(InvalidError):
                await stage.accept(StagedNar(node, facts), {b"test:link": b"1", b"": b"no key"})
            assert await store.records.get(b"test:link") is None
            with pytest.raises(NotFoundError):
                await store.nar.calculate(node)
            await stage.accept(StagedNar(node, facts), {b"test:link": b"1"})
        assert await is_whole(store, node, tree)
        assert await store.nar.calculate(node) == facts
        assert await store.records.get(b"test:link") == b"1"

    @pytest.mark.parametrize("tree", [{b"small": TreeFile(b"small")}, STAGED], ids=["small", "large"])
    async def test_of_known_content_facts_and_records_are_taken_as_well(self, store: Store, tree: Tree) -> None:
        assert store.records is not None
        facts = NarFacts(1234, b"n" * 32)
        await put_tree(store, tree)
        async with begun(store) as stage:
            node = await stage_tree(store, stage, tree)
            await stage.accept(StagedNar(node, facts), {b"test:link": b"1"})
        assert await store.nar.calculate(node) == facts
        assert await store.records.get(b"test:link") == b"1"

    async def test_what_grows_is_all_there(self, store: Store) -> None:
        """A stage keeps little in memory: then it writes that first."""
        blobs = [noise(60_000, f"growing {number}") for number in range(20)]
        for size in (1, 4, 5, 20):
            async with begun(store) as stage:
                await asyncio.gather(*(stage.blobs.put_many([blob, blob[:1000]]) for blob in blobs[:size]))
                await stage.accept()
            assert await store.blobs.get_many([Digest.of(blob) for blob in blobs[:size]]) == blobs[:size]
            assert not await store.blobs.missing([Digest.of(blob[:1000]) for blob in blobs[:size]])

    async def test_a_stage_tells_how_much_is_new(self, store: Store) -> None:
        """Each chunk counts once, and one that the store has does not."""
        known = {b"known": TreeFile(LARGE[:1_500_000]), b"a": TreeFile(b"a")}
        await put_tree(store, known)
        async with begun(store) as stage:
            await stage_tree(store, stage, {**known, b"small": TreeFile(b"small"), b"again": TreeFile(b"small")})
            assert stage.new_bytes() == len(b"small")
        async with begun(store) as stage:
            await stage_tree(store, stage, {**known, **STAGED})
            assert 1_500_000 <= stage.new_bytes() < 2_000_000

    async def test_what_is_not_accepted_leaves_nothing(self, store: Store) -> None:
        await put_file(store.blobs, b"another file")
        before = await counted(store)
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
        assert await is_absent(store, node)
        assert is_same(await counted(store), before)

    async def test_a_stage_may_stay_empty(self, store: Store) -> None:
        async with begun(store) as stage:
            await stage.accept()

    @pytest.mark.parametrize("rechecks", [False, True])
    async def test_what_is_known_need_not_be_kept_again(self, store: Store, rechecks: bool) -> None:
        node = await put_tree(store, {b"large": TreeFile(LARGE), b"a": TreeFile(b"a")})
        before = await counted(store)
        async with begun(store, rechecks=rechecks) as stage:
            assert await stage_tree(store, stage, {b"large": TreeFile(LARGE), b"a": TreeFile(b"a")}) == node
            await stage.accept()
        assert is_same(await counted(store), before)
        async with begun(store) as stage:
            node = await stage_tree(store, stage, STAGED)
            await stage.accept()
        assert await is_whole(store, node, STAGED)

    async def test_of_stages_with_the_same_content_some_may_be_refused(self, store: Store) -> None:
        async def staged(number: int) -> Node:
            async with begun(store) as stage:
                node = await stage_tree(store, stage, {**STAGED, b"own": TreeFile(noise(100_000, f"own {number}"))})
                if number % 3:
                    await stage.accept()
            return node

        nodes = await asyncio.gather(*map(staged, range(8)))
        for number, node in enumerate(nodes):
            if number % 3:
                assert await is_whole(store, node, {**STAGED, b"own": TreeFile(noise(100_000, f"own {number}"))})
            else:
                assert await store.blobs.missing([Digest.of(noise(100_000, f"own {number}"))])

    async def test_what_is_put_meanwhile_stays(self, store: Store) -> None:
        async with begun(store) as stage:
            await stage_tree(store, stage, STAGED)
            put = await put_tree(store, STAGED)
            more = await store.blobs.put(stream([noise(500_000, "meanwhile")]))
        assert await is_whole(store, put, STAGED)
        assert await collect(store.blobs.read(more)) == noise(500_000, "meanwhile")

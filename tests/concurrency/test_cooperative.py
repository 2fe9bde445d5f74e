"""However large a directory is, others are served while something is made of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from tests.concurrency.turns import turns_during
from tvix_store.backends import local, memory
from tvix_store.concurrency.cooperative import STEPS
from tvix_store.http.browse import format_index
from tvix_store.http.listings import format_listing
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.operations.ingest import import_nar
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.nars.seek import NarLayouts
from tvix_store.operations.nars.size import nar_size
from tvix_store.operations.trees.walk import walk_tree
from tvix_store.services.directories import parse, read_directory
from tvix_store.services.store import Store
from tvix_store.testing.content import stream
from tvix_store.testing.trees import nar

ENTRIES = {b"%06d" % n: SymlinkNode(b"%d" % n) for n in range(8 * STEPS)}
LARGE = Directory(ENTRIES)


async def end(pieces: AsyncIterator[object]) -> None:
    async for _ in pieces:
        pass


WORKS: dict[str, Callable[[Store, DirectoryNode], Awaitable[object]]] = {
    "walking through it": lambda store, node: end(walk_tree(store.directories.tree(node))),
    "listing it": lambda store, node: end(format_listing(store.directories.tree(node))),
    "showing it": lambda _, __: end(format_index([b"x"], LARGE)),
    "measuring it": lambda store, node: nar_size(store.directories.tree(node)),
    "rendering it": lambda store, node: end(render_nar(store.blobs, store.directories.tree(node))),
    "rendering a part of it": lambda store, node: end(
        NarLayouts(store.blobs).render_range(store.directories.tree(node), 1000, 1001)
    ),
}


@pytest.mark.parametrize("work", WORKS)
async def test_others_have_their_turn(work: str) -> None:
    async with await memory.open_store() as store:
        await store.directories.put(stream([LARGE]))
        assert await turns_during(WORKS[work](store, LARGE.node())) >= 7


@pytest.mark.parametrize("work", ["walking through it", "measuring it", "rendering it"])
async def test_others_have_their_turn_in_a_deep_tree(work: str) -> None:
    directories = [Directory({})]
    for _ in range(5000):
        directories.append(Directory({b"d": directories[-1].node()}))
    async with await memory.open_store() as store:
        await store.directories.put(stream(directories))
        assert await turns_during(WORKS[work](store, directories[-1].node())) > 1


async def test_a_large_directory_is_not_parsed_on_the_event_loop(tmp_path: Path) -> None:
    async with await local.open_store(tmp_path) as store:
        await store.directories.put(stream([LARGE]))
        directory = await store.directories.get(LARGE.digest)
        assert directory is not None
        assert not directory.is_parsed
        assert await turns_during(parse(directory)) > 1
        assert directory.is_parsed
        assert directory.entries == LARGE.entries
        assert (await read_directory(store.directories.tree(LARGE.node()), LARGE.digest)).is_parsed


async def test_a_large_directory_is_not_put_together_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    class Observed(Directory):
        def __init__(self, entries: Mapping[bytes, Node]) -> None:
            threads.append(threading.current_thread())
            super().__init__(entries)

    monkeypatch.setattr(import_nar, "Directory", Observed)
    async with await memory.open_store() as store:
        imported, _ = await import_nar.import_nar(store, stream([nar(ENTRIES)]))
    assert imported == LARGE.node()
    assert threads
    assert threading.main_thread() not in threads

"""What the machine of `test_collection_states.py` does with a store, and a second process that does it: the peer."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.backends.local.collected_history import small_packs, small_steps
from tests.backends.local.simulated_disk import NoSyncs
from tests.backends.local.test_checkpoint import engine_of
from tvix_store.backends.local import open_store
from tvix_store.config import verified
from tvix_store.layers.kept_path_infos import KeptPathInfos
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.paths.documents import KeptDocuments
from tvix_store.services.staging import Stage, StagedNar
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces, put_tree, stream
from tvix_store.testing.trees import Tree, TreeFile, castore

NEVER = 1 << 31
FILES = {name: noise(size, name) for name, size in (("a", 10), ("b", 3000), ("c", 20_000), ("d", 45_000))}
"""Contents: chunks of their own, and lists of one and of several segments."""


def leaf(name: str) -> TreeFile:
    return TreeFile(FILES[name])


TREES: dict[str, Tree] = {
    "one": {b"f": leaf("a")},
    "two": {b"f": leaf("c"), b"sub": {b"g": leaf("b")}},
    "three": {b"sub": {b"g": leaf("b")}, b"deep": {b"er": {b"f": leaf("d"), b"a": leaf("a")}}},
    "four": {b"deep": {b"er": {b"f": leaf("d"), b"a": leaf("a")}}, b"own": leaf("c")},
}


async def put_contents(store: Store, tree: str) -> None:
    await put_tree(store, TREES[tree])


async def put_many(store: Store, names: list[str]) -> list[Digest]:
    return await store.blobs.put_many([FILES[name] for name in names])


async def put_info(store: Store, info: PathInfo) -> PathInfo:
    return await verified(store).path_infos.put(info)


async def put_kept_info(store: Store, info: PathInfo) -> PathInfo:
    """Into a named cache."""
    async with await open_store(engine_of(store).directory / "caches" / "cache", durability=NoSyncs) as cache:
        known = store.known_nars
        assert known is not None
        return await verified(store.with_services(path_infos=KeptPathInfos(cache.path_infos, known, store.keeping))).path_infos.put(
            info
        )


async def remove(store: Store, output_hash: bytes) -> set[bytes]:
    assert store.removal is not None
    return await store.removal.remove([output_hash], unused_since=NEVER)


async def missing(store: Store, digests: list[Digest]) -> set[Digest]:
    return await store.blobs.missing(digests)


async def stat(store: Store, digest: Digest) -> bool:
    return await store.blobs.stat(digest) is not None


async def read(store: Store, digest: Digest) -> bytes:
    return await collect(store.blobs.read(digest))


async def calculate(store: Store, info: PathInfo) -> Any:
    return await store.nar.calculate(info.node)


async def put_document(store: Store, name: str, content: str) -> None:
    documents = KeptDocuments.of(store)
    assert documents is not None
    await documents.put("log", name, pieces(FILES[content], 7000))


async def import_tree(store: Store, info: PathInfo, tree: str) -> PathInfo:
    """By a stage, as an import does."""
    assert store.staging is not None
    stage = store.staging.begin()
    try:
        await put_staged(stage, tree)
        await stage.accept(StagedNar(info.node, info.nar))
    finally:
        await stage.close()
    return await verified(store).path_infos.put(info)


async def put_staged(stage: Stage, tree: str) -> None:
    content = castore(TREES[tree])
    for blob in content.blobs.values():
        await stage.blobs.put(pieces(blob, 10_000))
    await stage.directories.put(stream(content.directories))


async def accepted(stage: Stage, info: PathInfo) -> None:
    await stage.accept(StagedNar(info.node, info.nar))


async def closed(opened: Stage | Store) -> None:
    await opened.close()


class Failed(NamedTuple):
    """An error of the peer."""

    kind: type[Exception]
    text: str


def serve(connection: Connection) -> None:
    """Be the peer: open, close and use stores as told."""
    with small_steps(), asyncio.Runner() as runner:
        store: Store | None = None
        while True:
            what, *arguments = connection.recv()
            try:
                if store is not None and what in ("open", "close"):
                    runner.run(closed(store))
                    store = None
                if what == "open":
                    store = runner.run(small_packs(arguments[0], NoSyncs))
                    connection.send(None)
                elif what == "close":
                    connection.send(None)
                else:
                    assert store is not None
                    connection.send(runner.run(what(store, *arguments)))
            except Exception as error:  # noqa: BLE001 - the machine gets it
                connection.send(Failed(type(error), str(error)))


class Peer:
    """Another process."""

    def __init__(self) -> None:
        self._connection, its = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(its,), daemon=True)
        self._process.start()

    def do(self, what: Any, *arguments: Any) -> Any:
        self._connection.send((what, *arguments))
        result = self._connection.recv()
        if isinstance(result, Failed):
            error = result.kind.__new__(result.kind)
            error.args = (f"the peer: {result.text}",)
            raise error
        return result

"""All that reads trees works on a store that finds directories by the roots of trees alone, such as an object store of snix."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

from tvix_store.backends.memory import open_store
from tvix_store.errors import NotFoundError
from tvix_store.http.listings import format_listing
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import LeavesToRoot
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.export.export_tree import export_tree
from tvix_store.operations.export.tar import render_tar
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.nars.seek import NarLayouts
from tvix_store.operations.trees.lookup import lookup_in_store
from tvix_store.operations.trees.read_file import read_file
from tvix_store.operations.trees.resolve import resolve
from tvix_store.services.directories import read_directory
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, put_tree
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.trees import Tree, TreeFile, nar, read

DEEP: Tree = {b"down": {b"to": {b"file": TreeFile(b"deep"), b"link": SymlinkNode(b"file")}}}
TREE: Tree = {b"bin": {b"hello": TreeFile(b"hi", executable=True)}, b"lib": DEEP, b"same": DEEP}

Closure = dict[Digest, Directory]


class ClosureTree:
    def __init__(self, closures: dict[Digest, Closure], root: Node, top: Digest) -> None:
        self.root = root
        self._closures = closures
        self._top = top

    def expect_all(self) -> None:
        pass

    async def get(self, digest: Digest) -> Directory:
        found = self._closures.get(self._top, {}).get(digest)
        if found is None:
            raise NotFoundError("directory", digest)
        return found

    def below(self, node: Node) -> ClosureTree:
        return ClosureTree(self._closures, node, self._top)


class ClosureDirectories:
    """A DirectoryService that knows a directory below a root by that root alone."""

    def __init__(self) -> None:
        self._closures: dict[Digest, Closure] = {}

    async def get(self, digest: Digest) -> Directory | None:
        return self._closures.get(digest, {}).get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        if digest not in self._closures:
            raise NotFoundError("directory", digest)
        for directory in reversed(self._closures[digest].values()):
            yield directory

    def tree(self, root: Node) -> ClosureTree:
        return ClosureTree(self._closures, root, root.digest if isinstance(root, DirectoryNode) else Digest(bytes(32)))

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        order, closure = LeavesToRoot(), {}
        async for directory in directories:
            order.add(directory)
            closure[directory.digest] = directory
        root = order.finish()
        self._closures[root] = closure
        return root


async def filled() -> tuple[Store, PathInfo]:
    store, directories = await open_store(), ClosureDirectories()
    store = store.with_services(directories=directories, nar=RememberingNarService(store.blobs, directories, MemoryNars()))
    root = await put_tree(store, TREE)
    info = PathInfo(path("tree"), root, await store.nar.calculate(root))
    await store.path_infos.put(info)
    return store, info


async def test_whole_trees_are_read(tmp_path: Path) -> None:
    store, info = await filled()
    tree = store.directories.tree(info.node)
    assert await collect(render_nar(store.blobs, tree)) == nar(TREE)
    assert await collect(NarLayouts(store.blobs).render_range(tree, 500, 900)) == nar(TREE)[500:900]
    assert b"deep" in await collect(render_tar(store.blobs, tree, b"tree"))
    assert json.loads(await collect(format_listing(tree)))["root"]["entries"].keys() == {"bin", "lib", "same"}
    await export_tree(store.blobs, tree, tmp_path / "out")
    assert read(tmp_path / "out") == TREE


async def test_parts_of_trees_are_found_and_read(tmp_path: Path) -> None:
    store, info = await filled()
    base = str(info.store_path)
    assert await collect(read_file(store, f"{base}/lib/down/to/link")) == b"deep"
    found = await resolve(store, f"{base}/lib/down")
    assert await collect(render_nar(store.blobs, found.tree)) == nar(DEEP[b"down"])  # type: ignore[index]
    await export_tree(store.blobs, found.tree, tmp_path / "out")
    assert read(tmp_path / "out") == DEEP[b"down"]  # type: ignore[index]
    looked_up = await lookup_in_store(store, f"{base}/lib/down/to".encode())
    assert isinstance(looked_up.root, DirectoryNode)
    assert (await read_directory(looked_up, looked_up.root.digest)).entries.keys() == {b"file", b"link"}

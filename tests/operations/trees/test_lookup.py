"""What stands at a path inside a node."""

import os

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.trees.lookup import lookup, lookup_in_store
from tvix_store.operations.trees.read_file import read_file
from tvix_store.services.directories import read_directory
from tvix_store.testing.content import collect, missing, put_tree
from tvix_store.testing.faults import FaultyDirectories, delaying
from tvix_store.testing.trees import Tree, TreeFile

TREE: Tree = {
    b"bin": {b"hello": TreeFile(b"hi", executable=True), b"hi": SymlinkNode(b"hello")},
    b"lib": {b"deep": {b"up": SymlinkNode(b"../../bin//./hi")}},
    b"lib64": SymlinkNode(b"lib"),
    b"here": SymlinkNode(b"."),
    b"out": SymlinkNode(b"../elsewhere"),
    b"absolute": SymlinkNode(b"/etc/passwd"),
    b"round": SymlinkNode(b"about"),
    b"about": SymlinkNode(b"round"),
    b"dangling": SymlinkNode(b"nothing"),
}


async def found(path: bytes, *, follow: bool = False) -> Node:
    store = await open_store()
    return await lookup(store.directories.tree(await put_tree(store, TREE)), path, follow=follow)


@pytest.mark.parametrize("path", [b"bin/hello", b"/bin/hello", b"bin//hello/", b"./bin/./hello", b"lib/../bin/hello"])
async def test_a_file_is_found_however_its_path_is_spelled(path: bytes) -> None:
    node = await found(path)
    assert isinstance(node, FileNode)
    assert node.executable


@pytest.mark.parametrize("path", [b"", b"/", b".", b"bin/.."])
async def test_an_empty_path_is_the_root(path: bytes) -> None:
    store = await open_store()
    root = await put_tree(store, TREE)
    assert await lookup(store.directories.tree(root), path) == root
    assert isinstance(root, DirectoryNode)


async def test_a_symlink_is_found_as_such() -> None:
    assert await found(b"bin/hi") == SymlinkNode(b"hello")
    assert await found(b"lib64") == SymlinkNode(b"lib")


@pytest.mark.parametrize("path", [b"bin/hi", b"lib64/deep/up", b"here/here/bin/hi", b"lib/deep/up"])
async def test_symlinks_are_followed_where_that_is_asked_for(path: bytes) -> None:
    assert await found(path, follow=True) == await found(b"bin/hello")


@pytest.mark.parametrize("path", [b"none", b"bin/none", b"bin/hello/none", b"lib64/deep", b"lib64/deep/none"])
async def test_what_is_not_there_is_not_found(path: bytes) -> None:
    with pytest.raises(NotFoundError) as caught:
        await found(path)
    assert caught.value.kind == "path"
    assert path.decode() in str(caught.value)


async def test_a_dangling_symlink_leads_to_nothing() -> None:
    with pytest.raises(NotFoundError):
        await found(b"dangling", follow=True)


@pytest.mark.parametrize("path", [b"..", b"bin/../..", b"out", b"absolute"])
async def test_nothing_outside_is_reached(path: bytes) -> None:
    with pytest.raises(InvalidError, match="out of the store path"):
        await found(path, follow=True)


async def in_store(path: bytes) -> Node:
    """The node at a path below the store directory; two store paths are there, whose symlinks lead to each other and astray."""
    store = await open_store()
    other = StorePath(b"o" * 20, "other")
    beside = os.fsencode(str(other))
    trees: dict[StorePath, Tree] = {
        StorePath(b"p" * 20, "path"): {
            b"beside": SymlinkNode(b"../" + beside + b"/file"),
            b"absolute": SymlinkNode(b"/nix/store/" + beside + b"/file"),
            b"here": SymlinkNode(b"../" + beside + b"/.."),
            b"up": SymlinkNode(b".."),
            b"out": SymlinkNode(b"../../store"),
            b"elsewhere": SymlinkNode(b"/etc/passwd"),
            b"absent": SymlinkNode(b"../" + b"0" * 32 + b"-absent"),
        },
        other: {b"file": TreeFile(b"hi")},
    }
    for store_path, tree in trees.items():
        await store.path_infos.put(PathInfo(store_path, await put_tree(store, tree), NarFacts(1, bytes(32))))
    return (await lookup_in_store(store, path)).root


PATH = os.fsencode(str(StorePath(b"p" * 20, "path")))


@pytest.mark.parametrize("name", [b"beside", b"absolute", b"here/" + PATH + b"/beside"])
async def test_symlinks_may_lead_from_one_store_path_to_another(name: bytes) -> None:
    assert await in_store(PATH + b"/" + name) == FileNode(Digest.of(b"hi"), 2)


@pytest.mark.parametrize("path", [b"", b".", *(PATH + b"/" + name for name in (b"..", b"here", b"up", b"out", b"elsewhere"))])
async def test_the_store_directory_is_outside_of_all_store_paths(path: bytes) -> None:
    with pytest.raises(InvalidError, match="leads out of the store path"):
        await in_store(path)


@pytest.mark.parametrize("path", [PATH + b"/absent", b"0" * 32 + b"-absent", PATH + b"-other", b"no-store-path", b"\xff"])
async def test_a_store_path_that_is_not_there_is_not_found(path: bytes) -> None:
    with pytest.raises(NotFoundError):
        await in_store(path)


async def test_a_directory_or_a_symlink_is_not_read_as_a_file() -> None:
    for name, tree, kind in (("directory", TREE, "a directory"), ("symlink", SymlinkNode(b"x"), "a symlink")):
        path = StorePath(b"p" * 20, name)
        store = await open_store()
        await store.path_infos.put(PathInfo(path, await put_tree(store, tree), NarFacts(1, bytes(32))))
        with pytest.raises(InvalidError, match=f"{path} is {kind}, not a file"):
            await collect(read_file(store, str(path)))


async def test_symlinks_in_a_circle_are_given_up() -> None:
    with pytest.raises(InvalidError, match="40 symlinks"):
        await found(b"round", follow=True)


async def test_a_directory_that_is_not_in_the_store_is_named() -> None:
    store = await open_store()
    node = DirectoryNode(missing(), 1)
    with pytest.raises(NotFoundError, match=missing().hex):
        await lookup(store.directories.tree(node), b"file")
    with pytest.raises(NotFoundError, match=missing().hex):
        await read_directory(store.directories.tree(node), node.digest)


class CountedDirectories(FaultyDirectories):
    """The directories of a store; counts how often one is read."""

    reads = 0

    async def get(self, digest: Digest) -> Directory | None:
        self.reads += 1
        return await super().get(digest)


async def test_a_directory_is_read_once_however_often_the_way_leads_through_it() -> None:
    store = await open_store()
    root = await put_tree(store, TREE)
    directories = CountedDirectories(store.directories, delaying(0))
    assert await lookup(directories.tree(root), b"bin/../lib/../" * 400 + b"bin/hello") == await found(b"bin/hello")
    assert directories.reads == 2


async def test_a_way_has_an_end() -> None:
    assert await found(b"./" * 1999 + b"bin") == await found(b"bin")
    with pytest.raises(ExhaustedError, match="more than 2000 names"):
        await found(b"./" * 2000)
    store = await open_store()
    root = await put_tree(store, {b"to-and-fro": SymlinkNode(b"d/../" * 800), b"d": {}})
    with pytest.raises(ExhaustedError, match="more than 2000 names"):
        await lookup(store.directories.tree(root), b"to-and-fro/" * 3, follow=True)


async def test_a_way_through_ever_more_large_directories_has_an_end() -> None:
    store = await open_store()
    tree: Tree = {}
    for depth in range(30):
        tree = {b"down": tree, **{b"%d-%d" % (depth, n): SymlinkNode(b"x") for n in range(10_000)}}
    root = await put_tree(store, tree)
    assert isinstance(await lookup(store.directories.tree(root), b"down/" * 20), DirectoryNode)
    with pytest.raises(ExhaustedError, match="entries"):
        await lookup(store.directories.tree(root), b"down/" * 30)

"""The NAR of what is stored is the one that Nix makes of the same files."""

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests import programs
from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError, InvalidError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, nested, noise, put_file, put_tree, stream
from tvix_store.testing.faults import FaultyBlobs, FaultyDirectories, cutting, delaying, failing, faulty
from tvix_store.testing.strategies import trees
from tvix_store.testing.trees import Tree, TreeFile, nar, write

MIB = 1 << 20
VARIED: Tree = {
    b"empty": {},
    b"large": TreeFile(noise(3 * MIB + 5)),
    b"many": {b"%d" % n: TreeFile(noise(n * 7), executable=bool(n % 2)) for n in range(600)},
    b"nested": {b"a": {b"b": {b"c": {b"d": TreeFile(b"deep"), b"to": SymlinkNode(b"../../nowhere")}}}},
    b"nothing": TreeFile(b""),
    b"program": TreeFile(noise(300_000), executable=True),
    b"\xc3\xa9 and \xff": SymlinkNode(b"\xfe"),
}


async def rendered(store: Store, node: Node) -> bytes:
    return await collect(render_nar(store.blobs, store.directories.tree(node)))


def dumped(path: Path) -> bytes:
    """The NAR that Nix makes of a file, symlink or directory."""
    return subprocess.run([programs.require("nix-store"), "--dump", path], check=True, stdout=subprocess.PIPE).stdout


@settings(max_examples=60)
@given(trees())
def test_the_nar_of_any_tree_is_what_the_writer_makes_of_it(tree: Tree) -> None:
    async def nar_of_stored_tree() -> bytes:
        store = await open_store()
        return await rendered(store, await put_tree(store, tree))

    assert asyncio.run(nar_of_stored_tree()) == nar(tree)


@pytest.mark.parametrize("tree", [VARIED, TreeFile(b"x"), TreeFile(b"", executable=True), SymlinkNode(b"target"), {}])
async def test_the_nar_is_the_one_that_nix_dumps(tmp_path: Path, tree: Tree) -> None:
    store = await open_store()
    node = await put_tree(store, tree)
    write(tree, tmp_path / "tree")
    assert await rendered(store, node) == dumped(tmp_path / "tree")


async def test_size_and_hash_are_those_of_the_nar() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    expected = nar(VARIED)
    facts = await calculate_nar(store.blobs, store.directories.tree(node))
    assert facts == NarFacts(len(expected), hashlib.sha256(expected).digest())


class CountingDirectories(FaultyDirectories):
    """Counts the recursive reads."""

    reads = 0

    async def get(self, digest: Digest) -> Directory | None:
        raise AssertionError("one recursive read is enough")

    def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        self.reads += 1
        return super().get_recursive(digest)


async def test_size_and_hash_take_one_read_of_the_directories() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    directories = CountingDirectories(store.directories, delaying(0))
    await calculate_nar(store.blobs, directories.tree(node))
    assert directories.reads == 1


async def test_pieces_are_not_large_and_few_are_small() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    sizes = [len(piece) async for piece in render_nar(store.blobs, store.directories.tree(node))]
    assert max(sizes) < 1.3 * MIB
    assert sum(sizes) / len(sizes) >= 128 * 1024


async def test_a_tree_may_be_ten_thousand_levels_deep() -> None:
    depth = 10_000
    graph = nested(depth)
    store = await open_store()
    await store.directories.put(stream(graph))
    down = (tokens.DIRECTORY_START + tokens.entry_start(b"d")) * depth + tokens.DIRECTORY_START
    up = tokens.DIRECTORY_END + (tokens.ENTRY_END + tokens.DIRECTORY_END) * depth
    assert await rendered(store, graph[-1].node()) == tokens.MAGIC + down + up


async def test_a_closure_with_more_entries_than_are_kept_is_rendered() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"")
    lows = [Directory({b"%d-%d" % (n, m): node for m in range(2000)}) for n in range(40)]
    root = Directory({b"%02d" % n: low.node() for n, low in enumerate(lows)})
    await store.directories.put(stream([*lows, root]))
    assert (await rendered(store, root.node())).count(b"regular") == 80_000


class GreedyBlobs(FaultyBlobs):
    """Counts the bytes that were asked for in batches."""

    asked = 0

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes | None]:
        blobs = await super().get_many(digests)
        self.asked += sum(len(blob or b"") for blob in blobs)
        return blobs


async def test_little_is_fetched_ahead_of_a_slow_consumer() -> None:
    store = await open_store()
    node = await put_tree(store, {b"%03d" % n: TreeFile(noise(200_000, str(n))) for n in range(150)})
    blobs = GreedyBlobs(store.blobs, delaying(0))
    rendering = render_nar(blobs, store.directories.tree(node))
    given_out = len(await anext(rendering))
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert blobs.asked < given_out + 9 * MIB
        given_out += len(await anext(rendering))


async def test_a_rendering_may_be_given_up() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    async for _ in render_nar(store.blobs, store.directories.tree(node)):
        break
    await asyncio.sleep(0)
    assert await rendered(store, node) == nar(VARIED)


@pytest.mark.parametrize("after", [0, 1, 5, 500, 605])
@pytest.mark.parametrize("error", [UnavailableError("away"), CorruptError("damaged")])
async def test_an_error_of_the_store_ends_the_nar(after: int, error: Exception) -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    with pytest.raises(type(error), match=str(error)):
        await rendered(faulty(store, failing(error, after=after)), node)


async def test_a_large_file_that_ends_early_is_no_whole_nar() -> None:
    store = await open_store()
    node = await put_file(store.blobs, noise(3 * MIB))
    with pytest.raises(InvalidError, match=str(node.digest)):
        await rendered(faulty(store, cutting(after=2)), node)


async def test_a_directory_that_is_gone_is_named() -> None:
    store = await open_store()
    inner = Directory({b"link": SymlinkNode(b"x")})
    root = Directory({b"inner": inner.node()})
    await store.directories.put(stream([inner, root]))

    class WithoutInner(FaultyDirectories):
        async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
            yield root
            raise NotFoundError("directory", inner.digest)

    directories = WithoutInner(store.directories, delaying(0))
    with pytest.raises(NotFoundError, match=inner.digest.hex):
        await collect(render_nar(store.blobs, directories.tree(root.node())))


async def test_a_file_stated_smaller_than_it_is_never_makes_a_batch_large() -> None:
    store = await open_store()
    large = await put_file(store.blobs, noise(2 * MIB))
    with pytest.raises(InvalidError, match=str(large.digest)):
        await rendered(store, FileNode(large.digest, 1))


async def test_a_missing_blob_is_named() -> None:
    store = await open_store()
    root = Directory({b"here": await put_file(store.blobs, b"here"), b"there": FileNode(missing(), 1)})
    await store.directories.put(stream([root]))
    with pytest.raises(NotFoundError, match=missing().hex):
        await rendered(store, root.node())

"""A tar of what is stored: readable by others, and always the same."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.operations.export.tar import render_tar
from tvix_store.testing.content import collect, noise, put_tree
from tvix_store.testing.faults import failing, faulty
from tvix_store.testing.trees import Tree, TreeFile, read

SMALL: dict[bytes, Tree] = {
    b"bin": {b"hello": TreeFile(b"hello", executable=True)},
    b"link": SymlinkNode(b"bin/hello"),
    b"data": TreeFile(b""),
}
VARIED: Tree = {
    **SMALL,
    b"large": TreeFile(noise(2_000_001)),
    b"not UTF-8 \xff": {b"\xfe": SymlinkNode(b"\xfd" * 150)},
    "ünïcode".encode(): TreeFile(b"x" * 512),
    b"n" * 255: {b"m" * 255: TreeFile(b"long names"), b"to": SymlinkNode(b"t" * 1000)},
    b"many": {b"%d" % n: TreeFile(noise(n * 11)) for n in range(300)},
}


async def archive(tree: Tree, name: bytes = b"tree") -> bytes:
    store = await open_store()
    return await collect(render_tar(store.blobs, store.directories.tree(await put_tree(store, tree)), name))


@pytest.mark.parametrize("tree", [VARIED, {}, TreeFile(b"only", executable=True), SymlinkNode(b"nowhere")])
async def test_a_tar_unpacks_to_the_tree(tmp_path: Path, tree: Tree) -> None:
    subprocess.run(["tar", "-x"], cwd=tmp_path, input=await archive(tree), check=True)  # noqa: ASYNC221
    assert os.listdir(tmp_path) == ["tree"]
    assert read(tmp_path / "tree") == tree


async def test_members_are_sorted_and_have_no_owner_and_no_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(await archive(SMALL))) as tar:
        workers = tar.getmembers()
    assert [(worker.name, oct(worker.mode)) for worker in workers] == [
        ("tree", "0o755"),
        ("tree/bin", "0o755"),
        ("tree/bin/hello", "0o755"),
        ("tree/data", "0o644"),
        ("tree/link", "0o777"),
    ]
    assert {(worker.uid, worker.gid, worker.uname, worker.gname, worker.mtime) for worker in workers} == {(0, 0, "", "", 1)}


async def test_the_same_tree_always_makes_the_same_tar() -> None:
    digest = hashlib.sha256(await archive(SMALL)).hexdigest()
    assert digest == "cb9fa8b2f0e51b04b478b5d3bbd1a1101119469d0e6cc971fcc033e26760d1c3"


async def test_pieces_are_bounded() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    sizes = [len(piece) async for piece in render_tar(store.blobs, store.directories.tree(node), b"tree")]
    assert max(sizes) < 1_300_000
    assert min(sizes[:-1]) >= 256 * 1024


async def test_an_error_of_the_store_ends_the_tar() -> None:
    store = await open_store()
    node = await put_tree(store, VARIED)
    broken = faulty(store, failing(CorruptError("damaged"), after=100))
    with pytest.raises(CorruptError):
        await collect(render_tar(broken.blobs, broken.directories.tree(node), b"tree"))

"""What is exported to the disk is what was stored, whole or not at all."""

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests import programs
from tvix_store.backends.memory import open_store
from tvix_store.errors import ConflictError, CorruptError, DeniedError, ExhaustedError, InvalidError, NotFoundError, StoreError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.operations.export.export_tree import export_tree, save_stream
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.trees.open_directory import OpenDirectory, remove_tree
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, noise, pieces, put_tree, stream
from tvix_store.testing.faults import failing, faulty
from tvix_store.testing.trees import Tree, TreeFile, nar, read

TREE: Tree = {
    b"bin": {b"hello": TreeFile(b"#!/bin/sh\n", executable=True), b"hi": SymlinkNode(b"hello")},
    b"empty": {},
    b"large": TreeFile(noise(2_500_000)),
    b"many": {b"%d" % n: TreeFile(noise(n * 5)) for n in range(400)},
    b"nothing": TreeFile(b""),
    b"out": SymlinkNode(b"/etc/passwd"),
    b"large program": TreeFile(noise(300_000), executable=True),
    b"not UTF-8 \xff": {b"\xfe": SymlinkNode(b"\xfd")},
    b"n" * 255: TreeFile(b"long name"),
}


@pytest.fixture
async def store() -> Store:
    return await open_store()


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


async def export(store: Store, tree: Tree, target: Path) -> None:
    await export_tree(store.blobs, store.directories.tree(await put_tree(store, tree)), target)


@pytest.mark.parametrize("tree", [TREE, {}, TreeFile(b"file"), TreeFile(noise(400_000), executable=True), SymlinkNode(b"nowhere")])
async def test_a_tree_comes_back(store: Store, tmp_path: Path, tree: Tree) -> None:
    await export(store, tree, tmp_path / "out")
    assert read(tmp_path / "out") == tree
    assert os.listdir(tmp_path) == ["out"]


async def test_an_exported_tree_is_as_nix_restores_it(store: Store, tmp_path: Path) -> None:
    restore(nar(TREE), tmp_path / "restored")
    await export(store, TREE, tmp_path / "exported")
    assert modes(tmp_path / "exported") == modes(tmp_path / "restored")
    assert read(tmp_path / "exported") == read(tmp_path / "restored")


def restore(archive: bytes, target: Path) -> None:
    """Let Nix unpack a NAR."""
    subprocess.run([programs.require("nix-store"), "--restore", target], input=archive, check=True)


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_mode for path in root.rglob("*")}


@pytest.mark.usefixtures("umask")
async def test_the_umask_is_kept(store: Store, tmp_path: Path) -> None:
    await export(store, TREE, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out/bin/hello").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out/large").stat().st_mode & 0o777 == 0o640


def make_file(path: Path) -> None:
    path.write_bytes(b"mine")


def make_dangling_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_file, make_dangling_symlink, Path.mkdir])
@pytest.mark.parametrize("tree", [{b"a": TreeFile(b"")}, TreeFile(b"theirs"), SymlinkNode(b"theirs")])
async def test_an_existing_target_is_refused_and_kept(
    store: Store, tmp_path: Path, make: Callable[[Path], None], tree: Tree
) -> None:
    make(tmp_path / "out")
    before = read(tmp_path)
    with pytest.raises(ConflictError, match="exists"):
        await export(store, tree, tmp_path / "out")
    assert read(tmp_path) == before


@pytest.mark.parametrize("make", [make_file, make_dangling_symlink])
@pytest.mark.parametrize("tree", [{b"a": TreeFile(b"")}, TreeFile(b"theirs")])
async def test_a_target_that_appears_during_the_export_is_kept(
    store: Store, tmp_path: Path, make: Callable[[Path], None], tree: Tree
) -> None:
    async def appear(data: bytes) -> bytes:
        if not os.listdir(tmp_path):
            make(tmp_path / "out")
        return data

    node = await put_tree(store, tree)
    with pytest.raises(ConflictError, match="exists"):
        await export_tree(faulty(store, appear).blobs, store.directories.tree(node), tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert read(tmp_path / "out") != tree


@pytest.mark.parametrize("after", [0, 1, 200, 405])
async def test_a_failed_export_leaves_nothing(store: Store, tmp_path: Path, after: int) -> None:
    node = await put_tree(store, TREE)
    broken = faulty(store, failing(CorruptError("damaged"), after=after))
    with pytest.raises(CorruptError):
        await export_tree(broken.blobs, broken.directories.tree(node), tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_a_missing_blob_leaves_nothing(store: Store, tmp_path: Path) -> None:
    root = Directory({b"a": SymlinkNode(b"b"), b"missing": FileNode(missing(), 3)})
    await store.directories.put(stream([root]))
    with pytest.raises(NotFoundError):
        await export_tree(store.blobs, store.directories.tree(root.node()), tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_a_cancelled_export_leaves_nothing(store: Store, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def slow(data: bytes) -> bytes:
        if os.listdir(tmp_path):
            begun.set()
        await asyncio.sleep(0.001)
        return data

    node = await put_tree(store, TREE)
    exporting = asyncio.create_task(export_tree(faulty(store, slow).blobs, store.directories.tree(node), tmp_path / "out"))
    await begun.wait()
    exporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exporting
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "error"), [(errno.ENOSPC, ExhaustedError), (errno.EACCES, DeniedError), (errno.ENAMETOOLONG, InvalidError)]
)
async def test_what_the_disk_refuses_is_said_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[StoreError]
) -> None:
    def refuse(fd: int, data: bytes) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(error, match=os.strerror(code)) as caught:
        await export(store, {b"file": TreeFile(b"x")}, tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    assert os.listdir(tmp_path) == []


async def test_a_missing_parent_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no/such"):
        await export(store, TREE, tmp_path / "no/such/place")


async def test_the_path_of_a_file_may_be_longer_than_the_system_takes(store: Store, tmp_path: Path) -> None:
    tree: Tree = {b"bottom": TreeFile(b"deep")}
    for _ in range(100):
        tree = {b"d" * 200: tree, b"beside": TreeFile(b"")}
    await export(store, tree, tmp_path / "out")
    place = OpenDirectory(tmp_path / "out")
    for _ in range(100):
        place.enter(b"d" * 200)
    assert os.listdir(place.fd) == ["bottom"]
    place.close()
    remove_tree(tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_a_nar_is_saved_whole(store: Store, tmp_path: Path) -> None:
    node = await put_tree(store, TREE)
    await save_stream(render_nar(store.blobs, store.directories.tree(node)), tmp_path / "out.nar")
    assert (tmp_path / "out.nar").read_bytes() == nar(TREE)
    assert os.listdir(tmp_path) == ["out.nar"]


async def test_a_stream_that_fails_leaves_no_file(tmp_path: Path) -> None:
    async def failing_stream() -> AsyncIterator[bytes]:
        async for piece in pieces(noise(3_000_000), 1 << 20):
            yield piece
        raise CorruptError("damaged")

    with pytest.raises(CorruptError):
        await save_stream(failing_stream(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


async def test_a_stream_is_not_saved_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(ConflictError):
        await save_stream(stream([b"theirs"]), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"


async def test_a_symlink_whose_target_is_too_long_to_be_followed_is_exported(tmp_path: Path) -> None:
    link = SymlinkNode(b"x" * 300)
    async with await open_store() as store:
        await export_tree(store.blobs, store.directories.tree(link), tmp_path / "out")
        with pytest.raises(ConflictError):
            await export_tree(store.blobs, store.directories.tree(link), tmp_path / "out")
    assert (tmp_path / "out").readlink() == Path("x" * 300)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]  # noqa: ASYNC240

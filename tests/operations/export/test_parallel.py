"""A tree that a pool writes is the same tree, whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.operations.export.forked import forked
from tests.operations.export.test_export_tree import TREE
from tvix_store.backends.local import open_store
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError, StoreError, UnavailableError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.operations.export.export_tree import export_tree
from tvix_store.operations.export.worker_pool import WorkerPool
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, noise, put_file, put_tree, stream
from tvix_store.testing.trees import Tree, TreeFile, read

SHARED: dict[bytes, Tree] = {
    b"one of everything": TREE,
    b"deep": {b"er": {b"%d" % n: {b"a": TreeFile(noise(n)), b"b": {b"c": TreeFile(noise(n * 1000))}} for n in range(300)}},
    b"huge": {b"file": TreeFile(noise(20_000_000), executable=True), b"next": TreeFile(b"to it")},
    b"medium": {b"%d" % n: TreeFile(noise(300_000 + n)) for n in range(20)},
}


async def _sleep(store: Store, seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - a worker does one thing at a time


SMALL: dict[bytes, Tree] = {b"dir": {b"%d" % n: TreeFile(noise(n)) for n in range(300)}}
"""A tree of a single share or two."""


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[Store, WorkerPool]]:
    """A local store, and a pool that has it open too."""
    path = directory / "store"
    async with WorkerPool(lambda: open_store(path), 2) as pool, await open_store(path) as store:
        yield store, pool


async def refused(store: Store, pool: WorkerPool, root: Directory, out: Path) -> StoreError:
    """Why an export fails that leaves nothing. It is made large enough for a pool."""
    root = Directory(dict(root.entries) | {b"link %d" % n: SymlinkNode(b"x") for n in range(300)})
    await store.directories.put(stream([root]))
    with pytest.raises(StoreError) as caught:
        await export_tree(store.blobs, store.directories.tree(root.node()), out, pool=pool)
    assert os.listdir(out.parent) == ["store"]
    return caught.value


@pytest.mark.parametrize("tree", [SHARED, {}, TreeFile(b"file"), SymlinkNode(b"nowhere")])
@forked
async def test_a_tree_comes_back(tmp_path: Path, tree: Tree) -> None:
    counted = [0, 0]

    def count(files: int, size: int) -> None:
        counted[0] += files
        counted[1] += size

    async with opened(tmp_path) as (store, pool):
        node = await put_tree(store, tree)
        await export_tree(store.blobs, store.directories.tree(node), tmp_path / "out", pool=pool, progress=count)
    assert read(tmp_path / "out") == tree
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]
    files = [path for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")] if path.is_file() and not path.is_symlink()]
    assert counted == [len(files), sum(path.stat().st_size for path in files)]


@forked
async def test_what_is_missing_damaged_or_of_another_size_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, pool):
        good = await put_file(store.blobs, noise(1000))
        large = await put_file(store.blobs, noise(9_000_000))
        for files, error in (
            ({b"a": good, b"b": FileNode(missing(), 3)}, NotFoundError),
            ({b"a": good, b"b": FileNode(good.digest, 3)}, InvalidError),
            ({b"b": FileNode(large.digest, large.size - 1)}, InvalidError),
            ({b"b": FileNode(large.digest, large.size + 10_000_000)}, InvalidError),
            ({b"b": FileNode(missing(), 300_000)}, NotFoundError),
        ):
            assert type(await refused(store, pool, Directory(files), tmp_path / "out")) is error
        await store.sync()
        [pack] = (tmp_path / "store/packs").iterdir()
        contents = bytearray(pack.read_bytes())
        contents[contents.index(noise(1000)[:500]) + 3] ^= 1
        pack.write_bytes(contents)
        assert type(await refused(store, pool, Directory({b"a": good}), tmp_path / "out")) is CorruptError


@forked
async def test_a_cancelled_export_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, pool):
        node = await put_tree(store, SHARED)
        begun = asyncio.Event()
        exporting = asyncio.create_task(
            export_tree(
                store.blobs, store.directories.tree(node), tmp_path / "out", pool=pool, progress=lambda files, size: begun.set()
            )
        )
        await begun.wait()
        exporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exporting
    assert os.listdir(tmp_path) == ["store"]


@forked
async def test_a_member_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, pool):
        node = await put_tree(store, SHARED)
        victim = await pool.run(_pid)
        exporting = asyncio.create_task(export_tree(store.blobs, store.directories.tree(node), tmp_path / "out", pool=pool))
        await asyncio.sleep(0)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(UnavailableError):
            await exporting
    assert os.listdir(tmp_path) == ["store"]


async def _pid(store: Store) -> int:
    return os.getpid()


@forked
async def test_what_the_disk_refuses_is_said(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with opened(tmp_path) as (store, pool):
        node = await put_tree(store, {**SMALL, b"large": {b"file": TreeFile(noise(100_000))}})
        await asyncio.gather(pool.run(_limit_files, 50_000), pool.run(_limit_files, 50_000))
        with pytest.raises(ExhaustedError, match=f"cannot write {tmp_path}/out: File too large"):
            await export_tree(store.blobs, store.directories.tree(node), tmp_path / "out", pool=pool)
    assert os.listdir(tmp_path) == ["store"]


async def _limit_files(store: Store, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@forked
async def test_an_export_that_is_cancelled_while_it_waits_for_the_last_shares_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, pool):
        node = await put_tree(store, SMALL)
        busy = [asyncio.create_task(pool.run(_sleep, 0.3)) for _ in range(2)]
        exporting = asyncio.create_task(export_tree(store.blobs, store.directories.tree(node), tmp_path / "out", pool=pool))
        await asyncio.sleep(0.1)
        exporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exporting
        assert os.listdir(tmp_path) == ["store"]
        await asyncio.gather(*busy)
    assert os.listdir(tmp_path) == ["store"]


@forked
async def test_of_several_failures_at_once_one_is_raised_and_none_is_left_over(tmp_path: Path) -> None:
    left_over: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: left_over.append(context))
    async with opened(tmp_path) as (store, pool):
        absent = {b"%d" % n: FileNode(missing(), 3) for n in range(2000)}
        assert type(await refused(store, pool, Directory(absent), tmp_path / "out")) is NotFoundError
    gc.collect()
    assert left_over == []

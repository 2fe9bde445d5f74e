"""import_tree, held against the model's own idea of a tree and against what a file system can do to it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings

from tests.backends.local.committer_watch import watch_requests
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store
from tvix_store.errors import ExhaustedError, InvalidError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import fixed_output_path, flat_output_path
from tvix_store.operations.ingest import scan
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.ingest.scan import WHOLE_FILE
from tvix_store.operations.trees.lookup import lookup
from tvix_store.operations.trees.open_directory import OpenDirectory, remove_tree
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.nar import NarService
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.faults import FaultyBlobs, delaying, failing
from tvix_store.testing.strategies import trees as any_tree
from tvix_store.testing.trees import Tree, TreeFile

TREE: dict[bytes, Tree] = {
    b"bin": {b"run": TreeFile(b"#!/bin/sh\n", executable=True), b"sh": SymlinkNode(b"run")},
    b"empty": TreeFile(b""),
    b"large": TreeFile(noise(9_000_001, "large")),
    b"larger": TreeFile(noise(SMALL_BLOB + 1, "larger"), executable=True),
    b"medium": TreeFile(noise(1_500_000, "medium")),
    b"nothing": {},
    b"small": TreeFile(noise(SMALL_BLOB, "small")),
    b"\xff\xfe": TreeFile(b"not UTF-8"),
}


class WatchedNar:
    """A NarService that counts how often it is asked."""

    def __init__(self, inner: NarService) -> None:
        self._inner = inner
        self.calculated = 0

    async def calculate(self, node: Node) -> NarFacts:
        self.calculated += 1
        return await self._inner.calculate(node)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    trees.write(TREE, tmp_path / "tree")
    return tmp_path / "tree"


def facts(tree: Tree) -> NarFacts:
    nar = trees.nar(tree)
    return NarFacts(len(nar), hashlib.sha256(nar).digest())


@pytest.mark.parametrize("rule", SizeRule)
async def test_a_tree_becomes_its_node_nar_and_path(store: Store, tree: Path, rule: SizeRule) -> None:
    imported = await import_tree(store, tree, size_rule=rule)
    assert imported.node == trees.castore(TREE, rule).root
    assert imported.nar == facts(TREE)
    assert imported.store_path == fixed_output_path("tree", imported.nar.sha256)
    assert await store.path_infos.get(imported.store_path.output_hash) == imported.path_info
    assert await store.nar.calculate(imported.node) == imported.nar


async def test_a_small_tree_waits_for_two_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write({b"a": TreeFile(b"small"), b"b": {}}, tmp_path / "tree")
    async with await open_local(tmp_path / "store") as store:
        asked = watch_requests(monkeypatch)
        imported = await import_tree(store, tmp_path / "tree")
        assert len(asked) == 2, "content with the facts of its NAR, and the path info"
        assert store.known_nars is not None
        assert await store.known_nars.get(imported.node) == imported.nar


@settings(max_examples=60)
@given(tree=any_tree())
def test_any_tree_becomes_its_node_and_nar(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    path = tmp_path_factory.mktemp("any") / "tree"
    trees.write(tree, path)

    async def check() -> None:
        async with await open_store() as store:
            imported = await import_tree(store, path)
            assert imported.node == trees.castore(tree).root
            assert imported.nar == facts(tree)
            again = await import_tree(store, path)
            assert again == imported

    asyncio.run(check())


async def test_a_tree_that_is_known_is_not_hashed_again(tree: Path, tmp_path: Path) -> None:
    async with await open_local(tmp_path / "store") as local:
        watched = WatchedNar(local.nar)
        store = local.with_services(nar=watched, keep=["known_nars", "staging"])
        assert store.known_nars is not None
        first = await import_tree(store, tree)
        assert watched.calculated == 0
        assert await store.known_nars.get(first.node) == first.nar
        assert await import_tree(store, tree) == first
        assert watched.calculated == 1


async def test_a_new_tree_of_known_files_gets_the_right_nar(store: Store, tree: Path) -> None:
    await import_tree(store, tree)
    (tree / "zzz").write_bytes(b"new")
    imported = await import_tree(store, tree)
    assert imported.nar == facts({**TREE, b"zzz": TreeFile(b"new")})


async def test_progress_counts_every_file_and_byte_once(store: Store, tree: Path) -> None:
    for _ in range(2):  # new, then known
        seen = [0, 0]

        def count(files: int, size: int, seen: list[int] = seen) -> None:
            seen[0] += files
            seen[1] += size

        await import_tree(store, tree, progress=count)
        assert seen == [7, 10 + 9_000_001 + 1_500_000 + SMALL_BLOB + 1 + SMALL_BLOB + len(b"not UTF-8")]


async def test_a_tree_deeper_than_pythons_stack_and_the_longest_path_is_imported(store: Store, tmp_path: Path) -> None:
    depth = 3000
    with deep_tree(tmp_path / "deep", depth):
        before = len(os.listdir("/proc/self/fd"))
        imported = await import_tree(store, tmp_path / "deep")
        assert imported.node.size == 2 * depth  # type: ignore[union-attr]
        assert len(os.listdir("/proc/self/fd")) == before


async def test_what_is_wrong_in_a_deep_tree_is_named_by_its_whole_path(store: Store, tmp_path: Path) -> None:
    depth = 3000
    with deep_tree(tmp_path / "deep", depth) as bottom:
        os.mkfifo("odd", dir_fd=bottom.fd)
        with pytest.raises(InvalidError, match=f"^{tmp_path}/deep{'/d' * depth}/odd is a FIFO"):
            await import_tree(store, tmp_path / "deep")


async def test_a_deep_directory_that_is_moved_while_it_is_read_is_read_as_it_is_then(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "deep" / Path(*("d" * 10))

    def move(names: list[str]) -> None:
        if names == []:
            moved.rename(tmp_path / "moved")

    with deep_tree(tmp_path / "deep", 50):
        with after_each_listing(monkeypatch, move):
            imported = await import_tree(store, tmp_path / "deep")
        assert await import_tree(store, tmp_path / "deep") == imported
    remove_tree(tmp_path / "moved")


@pytest.mark.parametrize("name", ["bin", "small"])
async def test_what_is_swapped_for_a_symlink_while_it_is_read_is_not_followed(
    store: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def swap(names: list[str]) -> None:
        if name in names and not (tree / name).is_symlink():
            (tree / name).rename(tmp_path / "aside")
            (tree / name).symlink_to(tmp_path / "aside")

    with after_each_listing(monkeypatch, swap):
        imported = await import_tree(store, tree)
    aside = SymlinkNode(os.fsencode(tmp_path / "aside"))
    assert imported.node == trees.castore({**TREE, os.fsencode(name): aside}).root


async def test_what_is_swapped_again_and_again_is_refused_by_name(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(names: list[str]) -> None:
        if "small" in names:
            was_symlink = (tree / "small").is_symlink()
            (tree / "small").unlink()
            if was_symlink:
                (tree / "small").write_bytes(b"a file again")
            else:
                (tree / "small").symlink_to("nowhere")

    with after_each_listing(monkeypatch, swap), pytest.raises(InvalidError, match=f"{tree}/small changed while it was read"):
        await import_tree(store, tree)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_directory_that_gets_an_entry_while_it_is_read_is_read_once_more(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    added: list[Path] = []

    def add(names: list[str]) -> None:
        if {"run", "sh"} <= set(names) and len(added) < times:
            added.append(tree / "bin" / f"added {len(added)}")
            added[-1].write_bytes(b"added")

    with after_each_listing(monkeypatch, add):
        if times == 2:
            with pytest.raises(InvalidError, match=f"{tree}/bin changed while it was read"):
                await import_tree(store, tree)
            return
        imported = await import_tree(store, tree)
    assert await import_tree(store, tree) == imported
    assert await lookup(store.directories.tree(imported.node), b"bin/added 0") == FileNode(Digest.of(b"added"), 5)


@contextmanager
def deep_tree(root: Path, depth: int) -> Iterator[OpenDirectory]:
    """`depth` directories `d` in one another, each beside an `e`; the bottom one is open. Removed at the end, as pytest cannot."""
    root.mkdir()
    with OpenDirectory(root) as place:
        for _ in range(depth):
            os.mkdir("d", dir_fd=place.fd)
            os.symlink("nowhere", "e", dir_fd=place.fd)
            place.enter(b"d")
        try:
            yield place
        finally:
            remove_tree(root)


@contextmanager
def after_each_listing(monkeypatch: pytest.MonkeyPatch, act: Callable[[list[str]], None]) -> Iterator[None]:
    """Do something when a directory was listed, and before what it lists is read."""
    scandir = os.scandir

    @contextmanager
    def listed_then_act(place: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(place) as entries:
            found = list(entries)
        act([os.fsdecode(entry.name) for entry in found])
        yield iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", listed_then_act)
        yield


@pytest.mark.parametrize("make", ["socket", "FIFO", "character device"])
async def test_a_special_file_is_refused_by_name_and_kind(store: Store, tree: Path, make: str) -> None:
    odd = tree / "bin" / "odd one"
    with socket.socket(socket.AF_UNIX) as made:
        if make == "socket":
            made.bind(str(odd))
        elif make == "FIFO":
            os.mkfifo(odd)
        else:
            odd = Path("/dev/null")
        for path in {odd, tree if odd.is_relative_to(tree) else odd}:
            with pytest.raises(InvalidError, match=f"{odd} is a {make}"):
                await import_tree(store, path, name="odd")
    assert [info async for info in store.path_infos.list()] == []


async def test_what_is_not_there_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="absent: No such file"):
        await import_tree(store, tmp_path / "absent")


@pytest.mark.parametrize("name", ["a b", ""])
async def test_a_name_that_no_store_path_may_have_is_refused_before_anything_is_read(
    store: Store, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidError, match="not a store path name"):
        await import_tree(store, tmp_path / "absent", name=name)


@pytest.mark.parametrize("size", [0, 1000, WHOLE_FILE + 1])
async def test_a_flat_import_is_addressed_by_the_hash_of_the_file(store: Store, tmp_path: Path, size: int) -> None:
    data = noise(size)
    (tmp_path / "file").write_bytes(data)
    expected = flat_output_path("file", NixHash("sha256", hashlib.sha256(data).digest()))
    for _ in range(2):  # unknown, and known
        imported = await import_tree(store, tmp_path / "file", flat=True)
        assert (imported.store_path, imported.node) == (expected, FileNode(Digest.of(data), size))


async def test_a_flat_import_takes_files_only(store: Store, tree: Path) -> None:
    for path in (tree, tree / "bin" / "sh"):
        with pytest.raises(InvalidError, match="is not a regular file"):
            await import_tree(store, path, flat=True)


def change_behind_each_stat(monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[], None], times: int) -> None:
    """Let a file change, a number of times, whenever its reading has just begun."""
    settled_status = scan._settled_status
    left = times

    def stat_then_change(fd: int) -> os.stat_result:
        nonlocal left
        status = settled_status(fd)
        if left and status.st_ino == path.stat().st_ino:
            left -= 1
            change()
        return status

    monkeypatch.setattr(scan, "_settled_status", stat_then_change)


@pytest.mark.parametrize("size", [1000, 3_000_000, 9_000_000])
@pytest.mark.parametrize("change", [-1, 0, 1])
@pytest.mark.parametrize("in_tree", [False, True])
async def test_a_file_that_changes_while_it_is_read_is_read_once_more_and_then_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: int, in_tree: bool
) -> None:
    (tmp_path / "tree").mkdir()
    path = tmp_path / "tree" / "changing"
    path.write_bytes(bytes(size))
    root = path.parent if in_tree else path

    def write_in_place() -> None:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + change)
            file.seek(size // 2)
            file.write(os.urandom(8))

    with monkeypatch.context() as patch:
        change_behind_each_stat(patch, path, write_in_place, 2)
        with pytest.raises(InvalidError, match=f"{path} changed while it was read"):
            await import_tree(store, root)
    change_behind_each_stat(monkeypatch, path, write_in_place, 1)
    imported = await import_tree(store, root)
    now = TreeFile(path.read_bytes())
    assert imported.nar == facts({b"changing": now} if in_tree else now)


async def test_a_known_file_whose_contents_change_while_it_is_read_is_read_once_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    changing = tree / "changing"
    changing.write_bytes(bytes(9_000_000))
    await import_tree(store, changing)
    (tree / "a").write_bytes(b"new, so the NAR is hashed")
    pieces = scan.LargeFile.pieces
    passes = []

    def change_at_the_second_pass(self: scan.LargeFile, most: int = scan.PIECE) -> Iterator[bytes]:
        passes.append(most)
        if len(passes) == 2:
            changing.write_bytes(b"1" * 9_000_000)
        return pieces(self, most)

    monkeypatch.setattr(scan.LargeFile, "pieces", change_at_the_second_pass)
    imported = await import_tree(store, tree)
    assert imported.nar == facts({b"a": TreeFile((tree / "a").read_bytes()), b"changing": TreeFile(b"1" * 9_000_000)})


async def test_a_store_that_believes_nobody_is_asked_for_the_nar(store: Store, tree: Path) -> None:
    watched = WatchedNar(store.nar)
    imported = await import_tree(store.with_services(nar=watched), tree)
    assert imported.nar == facts(TREE)
    assert watched.calculated == 1


@pytest.mark.parametrize("after", [0, 1, 3, 7])
@pytest.mark.parametrize("error", [ExhaustedError("disk full"), UnavailableError("gone")])
async def test_an_error_of_the_store_ends_the_import(store: Store, tree: Path, after: int, error: Exception) -> None:
    faulty = replace(store, blobs=FaultyBlobs(store.blobs, failing(error, after=after)), staging=None)
    with pytest.raises(type(error), match=str(error)):
        await asyncio.wait_for(import_tree(faulty, tree), 20)
    assert [info async for info in store.path_infos.list()] == []


@pytest.mark.parametrize("sizes", [[10], [SMALL_BLOB + 1], [10, SMALL_BLOB + 1, SMALL_BLOB + 2]])
async def test_an_error_of_the_store_while_it_takes_files_is_raised_as_it_is(
    store: Store, tmp_path: Path, sizes: list[int]
) -> None:
    trees.write({b"%d" % n: TreeFile(noise(size)) for n, size in enumerate(sizes)}, tmp_path / "files")

    async def full(*_: object) -> NoReturn:
        await asyncio.sleep(0)
        raise ExhaustedError("disk full")

    blobs = FaultyBlobs(store.blobs, delaying(0))
    blobs.put = blobs.put_many = full  # type: ignore[method-assign,assignment]
    with pytest.raises(ExhaustedError, match="disk full"):
        await import_tree(replace(store, blobs=blobs, staging=None), tmp_path / "files")


@pytest.mark.parametrize("fails", ["put", "put_many"])
async def test_an_error_of_one_put_ends_the_others_and_is_raised_as_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Small and larger files of a batch are put beside each other."""
    trees.write({b"%d" % n: TreeFile(noise(size)) for n, size in enumerate((10, SMALL_BLOB + 1))}, tmp_path / "files")
    waiting = asyncio.Event()

    async def full(*_: object) -> NoReturn:
        await waiting.wait()
        raise ExhaustedError("disk full")

    async def never(*_: object) -> None:
        waiting.set()
        await asyncio.Event().wait()

    target = replace(store, staging=None)
    monkeypatch.setattr(target.blobs, fails, full)
    monkeypatch.setattr(target.blobs, "put_many" if fails == "put" else "put", never)
    with pytest.raises(ExhaustedError, match="disk full"):
        await asyncio.wait_for(import_tree(target, tmp_path / "files"), 20)


async def test_a_cancelled_import_leaves_no_path_and_nothing_running(store: Store, tree: Path) -> None:
    work = asyncio.create_task(import_tree(store, tree))
    for _ in range(3):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [info async for info in store.path_infos.list()] == []

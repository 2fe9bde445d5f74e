"""Files that look unchanged are not read again, and every change is seen."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.operations.ingest import files_cache, scan
from tvix_store.operations.ingest.files_cache import FilesCache
from tvix_store.operations.ingest.import_tree import Imported, import_tree
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

FILES = 100


@pytest.fixture(autouse=True)
def any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be remembered as soon as they were changed, and wherever they are; a test that changes one again waits for the next
    tick."""
    monkeypatch.setattr(files_cache, "_FRESH", 0)
    monkeypatch.setattr(files_cache, "_mount", lambda device: b"27")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as store:
        yield store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    contents = {b"%d" % n: TreeFile(noise(n * 300), executable=n % 7 == 0) for n in range(FILES)}
    trees.write({b"dir": contents, b"large": TreeFile(noise(9_000_000)), b"medium": TreeFile(noise(700_000))}, tmp_path / "tree")
    tick()
    return tmp_path / "tree"


class Reads:
    """Counts the files that are opened to be read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        really_open = os.open

        def counted(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            self.count += not flags & os.O_DIRECTORY and bool(flags & os.O_NONBLOCK)
            return really_open(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", counted)

    def taken(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def tick() -> None:
    """Wait until the file system's clock shows another time."""
    time.sleep(0.02)


async def remembered(store: Store, tree: Path) -> Imported:
    """The tree imported with what is remembered of it; the same as without."""
    imported = await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree))
    async with await open_store() as fresh:
        assert await import_tree(fresh, tree) == imported
    return imported


async def test_an_unchanged_tree_is_not_read_again(store: Store, tree: Path, reads: Reads) -> None:
    cache = tree.parent / "cache"
    first = await import_tree(store, tree, cache=FilesCache(cache, tree))
    assert reads.taken() == FILES + 2
    counted = [0, 0]

    def count(files: int, size: int) -> None:
        counted[0] += files
        counted[1] += size

    assert await import_tree(store, tree, cache=FilesCache(cache, tree), progress=count) == first
    assert reads.taken() == 0
    assert counted == [FILES + 2, sum(n * 300 for n in range(FILES)) + 9_000_000 + 700_000]
    assert await import_tree(store, tree) == first
    assert reads.taken() == FILES + 2


@pytest.mark.parametrize("name", ["dir/50", "large", "medium"])
async def test_contents_that_change_under_the_same_size_and_time_are_read(
    store: Store, tree: Path, name: str, reads: Reads
) -> None:
    first = await remembered(store, tree)
    path = tree / name
    status = path.stat()
    tick()
    with path.open("r+b") as file:
        file.write(b"changed")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    tick()
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    reads.taken()
    second = await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree))
    assert reads.taken() == 1
    assert second.nar != first.nar
    assert await remembered(store, tree) == second


async def test_a_large_file_that_comes_first_and_has_changed_does_not_hide_what_is_known(store: Store, tree: Path) -> None:
    (tree / "a large one").write_bytes(noise(9_000_000, "first"))
    tick()
    await remembered(store, tree)
    (tree / "a large one").write_bytes(noise(9_000_000, "second"))
    tick()
    await remembered(store, tree)


async def test_what_is_wrong_in_the_cache_is_mended_by_reading_all(store: Store, tree: Path, reads: Reads) -> None:
    first = await remembered(store, tree)
    cache = FilesCache(tree.parent / "cache", tree)
    [wrong] = await store.blobs.put_many([noise(50 * 300, "another")])
    cache.save([cache.key((tree / "dir/50").stat()), *[None] * FILES], [wrong] * (FILES + 1))
    reads.taken()
    assert await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree)) != first
    assert await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree, lookup=False)) == first
    reads.taken()
    assert await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree)) == first
    assert reads.taken() == 0


async def test_a_store_that_lacked_something_is_remembered_to_have_it(store: Store, tree: Path, reads: Reads) -> None:
    await remembered(store, tree)
    async with await open_store() as other:
        await import_tree(other, tree, cache=FilesCache(tree.parent / "cache", tree))
        reads.taken()
        await import_tree(other, tree, cache=FilesCache(tree.parent / "cache", tree))
        assert reads.taken() == 0


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 7:0 / /image ro,relatime - ext4 /dev/loop0 ro
29 27 7:1 / /bound ro,relatime - ext4 /dev/loop1 rw
30 27 0:50 / /net rw,relatime - nfs4 server:/ rw
31 27 0:51 / /merged rw,relatime master:1 propagate_from:2 - overlay overlay rw,lowerdir=/a
32 27 0:25 / /shm rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("device", "mount"),
    [((254, 0), b"27"), ((0, 25), b"32"), ((7, 0), None), ((7, 1), None), ((0, 50), None), ((0, 51), None), ((8, 1), None)],
)
def test_only_where_the_kernel_watches_changes_something_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: tuple[int, int], mount: bytes | None
) -> None:
    monkeypatch.undo()
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(files_cache, "_MOUNTS", tmp_path / "mounts")
    assert files_cache._mount(os.makedev(*device)) == mount


def test_the_cache_of_somebody_else_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert files_cache._read_own(tmp_path / "file") == b"x"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert files_cache._read_own(tmp_path / "file") == b""


def test_a_tree_that_is_not_there_is_not_remembered(tmp_path: Path) -> None:
    cache = FilesCache(tmp_path / "cache", tmp_path / "absent")
    assert not cache
    cache.save([b"x" * 32] * 100, [Digest.of(b"")] * 100)
    assert not (tmp_path / "cache").exists()


async def test_files_that_took_anothers_place_are_read(store: Store, tree: Path) -> None:
    await remembered(store, tree)
    tick()
    (tree / "dir/1").rename(tree / "dir/kept")
    (tree / "dir/2").rename(tree / "dir/1")
    (tree / "dir/kept").rename(tree / "dir/2")
    shutil.copy2(tree / "dir/4", tree / "dir/copy")
    (tree / "dir/3").unlink()
    (tree / "dir/7").chmod(0o644)
    (tree / "dir/8").unlink()
    (tree / "dir/8").symlink_to("9")
    tick()
    await remembered(store, tree)
    await remembered(store, tree)


async def test_what_was_just_changed_is_not_remembered(
    store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    monkeypatch.setattr(files_cache, "_FRESH", 10_000_000_000)
    await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree))
    reads.taken()
    await import_tree(store, tree, cache=FilesCache(tree.parent / "cache", tree))
    assert reads.taken() == FILES + 2


async def test_a_store_that_lacks_what_is_remembered_gets_it(store: Store, tree: Path) -> None:
    first = await remembered(store, tree)
    counted = [0, 0]

    def count(files: int, size: int) -> None:
        counted[0] += files
        counted[1] += size

    async with await open_store() as other:
        # Some are there, and counted before others turn out to be missing.
        await other.blobs.put_many([noise(n * 300) for n in range(FILES // 2)])
        assert await import_tree(other, tree, cache=FilesCache(tree.parent / "cache", tree), progress=count) == first
        assert await calculate_nar(other.blobs, other.directories.tree(first.node)) == first.nar
    assert counted == [FILES + 2, sum(n * 300 for n in range(FILES)) + 9_000_000 + 700_000]


async def test_content_that_was_found_damaged_is_stored_again(tmp_path: Path, tree: Path) -> None:
    async with await open_local(tmp_path / "store") as store:
        first = await remembered(store, tree)
        packs = {pack: bytearray(pack.read_bytes()) for pack in (tmp_path / "store/packs").iterdir()}
        [(pack, contents)] = [(pack, contents) for pack, contents in packs.items() if noise(50 * 300)[:1000] in contents]
        contents[contents.index(noise(50 * 300)[:1000]) + 10] ^= 1
        pack.write_bytes(contents)
        with pytest.raises(CorruptError):
            await calculate_nar(store.blobs, store.directories.tree(first.node))
        await store.sync()
        assert await remembered(store, tree) == first
        assert await calculate_nar(store.blobs, store.directories.tree(first.node)) == first.nar


@pytest.mark.parametrize("harm", ["cut", "flipped", "other", "empty", "directory"])
async def test_a_cache_that_is_damaged_is_empty(store: Store, tree: Path, harm: str, reads: Reads) -> None:
    first = await remembered(store, tree)
    [path] = (tree.parent / "cache").iterdir()
    data = bytearray(path.read_bytes())
    if harm == "directory":
        path.unlink()
        path.mkdir()
    else:
        data[len(data) // 2] ^= 1
        harmed: dict[str, bytes] = {
            "cut": bytes(data[:-10]),
            "flipped": bytes(data),
            "other": b"tvix-store files 2\n",
            "empty": b"",
        }
        path.write_bytes(harmed[harm])
    assert not FilesCache(tree.parent / "cache", tree)
    assert await remembered(store, tree) == first


async def test_a_cache_that_cannot_be_written_is_no_error(store: Store, tree: Path) -> None:
    (tree.parent / "cache").write_text("a file")
    await remembered(store, tree)
    assert (tree.parent / "cache").read_text() == "a file"


def test_the_caches_that_were_not_used_for_longest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_cache, "_KEPT", 3)
    monkeypatch.setattr(files_cache, "_FEWEST", 1)
    for name in "abcde":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
        tick()
        cache = FilesCache(tmp_path / "cache", tmp_path / name)
        cache.save([cache.key((tmp_path / name / "file").stat())], [Digest.of(b"x")])
        assert cache._path is not None
        os.utime(cache._path, (ord(name), ord(name)))
    assert [bool(FilesCache(tmp_path / "cache", tmp_path / name)) for name in "abcde"] == [False, False, True, True, True]


Change = tuple[str, int, int]


@settings(max_examples=30, deadline=None)
@given(
    rounds=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["write", "replace", "remove", "swap", "chmod", "touch"]), st.integers(0, 9), st.integers(0, 9)
            ),
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_after_any_changes_an_import_is_as_if_nothing_was_remembered(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[Change]]
) -> None:
    root = tmp_path_factory.mktemp("changed") / "tree"
    trees.write({b"%d" % n: TreeFile(b"%d" % (n * n + 10)) for n in range(10)}, root)

    async def check() -> None:
        async with await open_store() as store:
            await remembered(store, root)
            for changes in rounds:
                tick()
                for change in changes:
                    _change(root, *change)
                tick()
                await remembered(store, root)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files_cache, "_FEWEST", 1)
        patched.setattr(scan, "WHOLE_FILE", 1)  # some are large, also the first
        asyncio.run(check())


def _change(root: Path, kind: str, one: int, other: int) -> None:
    path, second = root / str(one), root / str(other)
    if kind == "write":
        path.write_bytes(b"%d" % (other * other))
    elif kind == "replace":
        (root / "new").write_bytes(b"%d" % (other * other))
        (root / "new").rename(path)
    elif not path.exists():
        return
    elif kind == "remove":
        path.unlink()
    elif kind == "swap" and second.exists():
        path.rename(root / "kept")
        if second.exists():
            second.rename(path)
        (root / "kept").rename(second)
    elif kind == "chmod":
        path.chmod(0o755 if other % 2 else 0o644)
    else:
        os.utime(path, (other, other))

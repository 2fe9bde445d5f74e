"""Collection of a local store: what is needed stays, what is not goes, and its space comes back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.backends.local.store_files import make_index_anew
from tests.backends.local.test_checkpoint import engine_of
from tvix_store.backends.local import open_store
from tvix_store.backends.local.collection.power import LocalCollection
from tvix_store.backends.local.removal import SayRemoved
from tvix_store.config import verified
from tvix_store.errors import CorruptError, ForgottenError, IncompleteError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.nars.kept_plans import KeptPlans
from tvix_store.operations.nars.links import FileFacts, NarLink, NarLinks
from tvix_store.operations.nars.planner import plan_nar
from tvix_store.services.collection import NOTHING, Collected
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, noise, put_tree
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.trees import Tree, TreeFile

NEVER = 1 << 31
GRACE = 24 * 3600.0


Files: TypeAlias = "Mapping[bytes, bytes | Files]"

TREE: Files = {b"small": b"a small file", b"sub": {b"large": noise(1_000_000), b"empty": b""}}


def tree_of(files: Files) -> Tree:
    return {name: TreeFile(each) if isinstance(each, bytes) else tree_of(each) for name, each in files.items()}


def root_of(info: PathInfo) -> Digest:
    assert isinstance(info.node, DirectoryNode)
    return info.node.digest


def digest_of(directory: Directory | None, name: bytes) -> Digest:
    assert directory is not None
    node = directory.entries[name]
    assert isinstance(node, FileNode)
    return node.digest


async def put_path(store: Store, name: str, files: Files) -> PathInfo:
    node = await put_tree(store, tree_of(files))
    info = PathInfo(path(name), node, await store.nar.calculate(node))
    return await store.path_infos.put(info, calculated=True)


async def remove(store: Store, *infos: PathInfo) -> None:
    assert store.removal is not None
    hashes = [info.store_path.output_hash for info in infos]
    assert await store.removal.remove(hashes, unused_since=NEVER) == set(hashes)


async def collect_garbage(store: Store, grace: float = 0, *, later: float = 0) -> Collected:
    """A run by a clock that is so many seconds ahead."""
    return await LocalCollection(engine_of(store), lambda: time.time() + later).collect(grace)


async def is_whole(store: Store, info: PathInfo) -> bool:
    """Whether all of a path is there, by a NAR that is calculated anew."""
    return await calculate_nar(store.blobs, store.directories.tree(info.node)) == info.nar


def packs(directory: Path) -> Mapping[str, int]:
    return {each.name: each.stat().st_size for each in (directory / "packs").iterdir()}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store(tmp_path / "store") as store:
        yield store


async def test_what_no_path_needs_goes_and_its_space_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept = await put_path(store, "kept", TREE)
        gone = await put_path(store, "gone", {**TREE, b"more": noise(2_000_000, "more")})
        assert store.collection is not None
        expected = await store.collection.expected([gone.store_path.output_hash])
        await remove(store, gone)
        before = sum(packs(directory).values())
        assert await store.collection.expected() == expected
        assert expected.condemned.size > 2_000_000
        assert sum(packs(directory).values()) == before
        done = await collect_garbage(store)
        assert done.dropped == expected.condemned
        assert done.freed >= 0.95 * expected.condemned.size
        assert before - sum(packs(directory).values()) == pytest.approx(done.freed, abs=1000)
        assert await is_whole(store, kept)
        assert await store.directories.get(root_of(gone)) is None
        assert await collect_garbage(store) == Collected()
    make_index_anew(directory)
    async with await open_store(directory) as store:
        assert await store.path_infos.get(gone.store_path.output_hash) is None
        assert await is_whole(store, kept)


async def test_what_is_condemned_waits_for_its_grace(store: Store) -> None:
    kept, gone = await put_path(store, "kept", TREE), await put_path(store, "gone", {b"file": noise(100_000, "gone")})
    await remove(store, gone)
    done = await collect_garbage(store, GRACE)
    assert done.condemned.count > 0
    assert done.dropped == NOTHING
    again = await collect_garbage(store, GRACE)
    assert (again.waiting, again.ready_at, again.condemned) == (done.condemned, done.ready_at, NOTHING)
    assert (await collect_garbage(store, GRACE, later=GRACE - 10)).waiting == done.condemned
    last = await collect_garbage(store, GRACE, later=GRACE + 10)
    assert (last.dropped, last.condemned, last.waiting, last.ready_at) == (done.condemned, NOTHING, NOTHING, 0)
    assert await is_whole(store, kept)


async def test_what_is_read_is_there_for_another_grace(store: Store) -> None:
    await put_path(store, "kept", TREE)
    gone = await put_path(store, "gone", {b"file": noise(100_000, "gone")})
    await remove(store, gone)
    condemned = (await collect_garbage(store, GRACE)).condemned
    assert await is_whole(store, gone)
    done = await collect_garbage(store, GRACE, later=GRACE + 10)
    assert (done.dropped, done.condemned) == (NOTHING, condemned)
    assert await is_whole(store, gone)


@pytest.mark.parametrize("way", ["stat", "missing", "get", "calculate", "put again"])
async def test_who_finds_it_takes_it_back(store: Store, way: str) -> None:
    await put_path(store, "kept", TREE)
    tree = {b"file": noise(600_000, way), b"other": noise(10, way)}
    gone = await put_path(store, "gone", tree)
    directory = await store.directories.get(root_of(gone))
    file, other = digest_of(directory, b"file"), digest_of(directory, b"other")
    await remove(store, gone)
    condemned = (await collect_garbage(store, GRACE)).condemned
    match way:
        case "stat":
            assert await store.blobs.stat(file) is not None
        case "missing":
            assert await store.blobs.missing([file]) == set()
        case "get":
            assert await store.directories.get(root_of(gone)) is not None
        case "calculate":
            await store.nar.calculate(gone.node)
        case _:
            await put_path(store, "gone", tree)
    done = await collect_garbage(store)
    if way == "put again":
        assert done.dropped == NOTHING
        assert await is_whole(store, gone)
        return
    # What was taken back is condemned anew. Without a grace, it goes at once.
    assert done.dropped.count == condemned.count
    assert await store.blobs.missing([file, other]) == {file, other}


async def test_facts_of_a_nar_go_with_the_publication(store: Store) -> None:
    kept, gone = await put_path(store, "kept", TREE), await put_path(store, "gone", {b"file": b"gone"})
    assert store.known_nars is not None
    await remove(store, gone)
    await collect_garbage(store, GRACE)
    assert await store.known_nars.get(kept.node) is not None
    assert await store.known_nars.get(gone.node) is None
    with pytest.raises(ForgottenError):
        await store.path_infos.put(gone, calculated=True)


async def test_facts_of_before_are_not_remembered(store: Store) -> None:
    await put_path(store, "kept", TREE)
    node = await put_tree(store, tree_of({b"file": b"found before"}))
    since = store.begin_nar()
    facts = await store.nar.calculate(node)
    await collect_garbage(store, GRACE)
    await store.remember_nar(node, facts, since)
    assert store.known_nars is not None
    assert await store.known_nars.get(node) is None
    await store.remember_nar(node, facts, store.begin_nar())
    assert await store.known_nars.get(node) == facts


async def test_a_hole_ends_the_run(store: Store) -> None:
    gone = await put_path(store, "gone", {b"file": noise(1000, "gone")})
    await remove(store, gone)
    node = await put_tree(store, tree_of({b"file": b"there"}))
    await store.path_infos.put(PathInfo(path("lacks"), DirectoryNode(missing("directory"), 1), await store.nar.calculate(node)))
    with pytest.raises(CorruptError, match="is missing, and store paths need it"):
        await collect_garbage(store)
    assert await is_whole(store, gone)


async def test_a_store_whose_content_no_path_needs_is_left_alone(store: Store) -> None:
    """It may be the content of a store whose path infos stand elsewhere."""
    await put_tree(store, tree_of(TREE))
    with pytest.raises(InvalidError, match="never had a path"):
        await collect_garbage(store)


async def test_an_empty_store_has_nothing_to_collect(store: Store) -> None:
    assert await collect_garbage(store) == Collected()


async def test_a_put_whose_content_was_collected_is_refused(store: Store) -> None:
    await put_path(store, "kept", TREE)
    gone = await put_path(store, "gone", {b"file": b"gone"})
    await remove(store, gone)
    await collect_garbage(store)
    with pytest.raises(IncompleteError):
        await verified(store).path_infos.put(gone)
    await put_tree(store, tree_of({b"file": b"gone"}))
    await verified(store).path_infos.put(gone)
    await collect_garbage(store)
    assert await is_whole(store, gone)


async def test_a_removal_that_was_not_said_is_said_before_content_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process dies between the removal in the index and the entry in the journal."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        kept, gone = await put_path(store, "kept", TREE), await put_path(store, "gone", {b"file": noise(300_000, "gone")})
        with monkeypatch.context() as patched:
            patched.setattr(SayRemoved, "apply", lambda request, commit: None)
            await remove(store, gone)
        assert (await collect_garbage(store)).dropped.size > 300_000
    make_index_anew(directory)
    async with await open_store(directory) as store:
        assert await store.path_infos.get(gone.store_path.output_hash) is None
        assert await is_whole(store, kept)
        await collect_garbage(store)


async def test_a_dry_run_commits_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what a run would, since a process died before its removal was in the journal."""
    await put_path(store, "kept", TREE)
    gone = await put_path(store, "gone", {b"file": noise(300_000, "gone")})
    with monkeypatch.context() as patched:
        patched.setattr(SayRemoved, "apply", lambda request, commit: None)
        await remove(store, gone)
        await store.sync()
    index = engine_of(store).index
    before = index.last_transaction()
    assert store.collection is not None
    assert (await store.collection.expected()).condemned.size > 300_000
    assert index.last_transaction() == before
    await collect_garbage(store)
    assert index.last_transaction() > before


async def test_links_go_with_what_they_lead_to(store: Store) -> None:
    """Those of a path that was deleted, and of a NAR whose narinfo never came."""
    kept, gone = await put_path(store, "kept", TREE), await put_path(store, "gone", {b"file": noise(300_000, "gone")})
    unclaimed = await put_tree(store, tree_of({b"file": noise(200_000, "unclaimed")}))
    facts = await store.nar.calculate(unclaimed)
    links, plans = NarLinks.of(store), KeptPlans(store)
    assert links is not None
    for node, nar in ((kept.node, kept.nar), (gone.node, gone.nar), (unclaimed, facts)):
        await links.put_zstd_file(NarLink(nar, node), FileFacts(5, bytes(32)), bytes(16))
        assert store.frames is not None
        await plans.put(node, await plan_nar(store.frames, store.directories.tree(node)))
    await remove(store, gone)
    await collect_garbage(store, GRACE)
    assert await links.get(gone.nar.sha256) is not None, "until the content is deleted"
    await collect_garbage(store)
    assert await links.get(kept.nar.sha256) is not None
    assert await plans.get(kept.node) is not None
    assert store.records is not None
    left = [key async for key, _ in store.records.list() if key.startswith((b"nar:", b"zstd:", b"plan:"))]
    assert len(left) == 3

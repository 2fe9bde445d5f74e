"""A pack that lost its end: what the store says is there afterwards is still there when the index is made anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.backends.local.store_files import make_index_anew
from tvix_store.backends.local import lost_packs, open_store
from tvix_store.backends.local.pack_scan import Entry, PackScan
from tvix_store.backends.local.packs import PREFIX_SIZE
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import HEADER_SIZE, Kind
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, put_tree
from tvix_store.testing.contracts.staging import begun, is_whole, stage_tree
from tvix_store.testing.trees import Tree, TreeFile

TREE: Tree = {b"d": {b"large": TreeFile(noise(1_500_000, "large"))}, b"small": TreeFile(noise(20_000, "small"))}
PATH = StorePath(b"o" * 20, "path")


def packs(store: Path) -> list[Path]:
    return sorted((store / "packs").iterdir())


def entries(pack: Path) -> list[Entry]:
    with closing(PackScan(pack, int(pack.stem, 16), PREFIX_SIZE)) as scan:
        return list(scan.entries(Progress("", 0)))


def cuts(pack: Path) -> Iterator[int]:
    """Sizes that the pack may be cut to, so that one or both of its last two entries are lost."""
    for entry in entries(pack)[-2:]:
        begin = entry.offset - HEADER_SIZE
        edges = (begin, begin + 1, entry.offset - 1, entry.offset, entry.end - 1)
        yield from sorted({at for at in edges if at < entry.end})


@pytest.fixture
async def store_dir(tmp_path: Path) -> Path:
    """A store with a stage in packs of its own, a path info, and records in the committer's pack."""
    async with await open_store(tmp_path / "store", pack_size=1 << 20) as store:
        async with begun(store) as stage:
            node = await stage_tree(store, stage, TREE)
            await stage.accept()
        assert store.records is not None
        await store.records.put({b"gone": b"value"})
        await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node)))
        await store.records.put({b"key": b"value"})
        await store.records.delete([b"gone"])
    kinds = [[entry.kind for entry in entries(pack)] for pack in packs(tmp_path / "store")]
    assert sum(Kind.STAGED in each for each in kinds) > 1
    assert any(Kind.PATH_INFO in each for each in kinds)
    return tmp_path / "store"


def contents(directory: Path) -> list[Digest]:
    return [
        Digest(entry.key)
        for pack in packs(directory)
        for entry in entries(pack)
        if entry.kind in (Kind.CHUNK, Kind.DIRECTORY, Kind.CHUNK_LIST)
    ]


async def there(store: Store, digests: list[Digest]) -> set[Digest]:
    """Which contents the store says are there. Path infos and records are."""
    assert store.records is not None
    assert await store.path_infos.get(PATH.output_hash) is not None
    assert await store.records.get(b"key") == b"value"
    assert await store.records.get(b"gone") is None
    missing = await store.blobs.missing(digests)
    return {digest for digest in digests if digest not in missing or await store.directories.get(digest) is not None}


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("which", ["each", "all"])
async def test_what_is_there_when_a_pack_was_cut_is_there_when_the_index_is_made_anew(
    store_dir: Path, tmp_path: Path, which: str, is_running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_packs, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(lost_packs, "_LOOKING", 1e9)
    digests = contents(store_dir)
    ways = [{pack.name: size} for pack in packs(store_dir) for size in cuts(pack)]
    if which == "all":
        ways = [{pack.name: pack.stat().st_size - less for pack in packs(store_dir)} for less in (1, HEADER_SIZE, HEADER_SIZE + 1)]
    for number, sizes in enumerate(ways):
        directory = tmp_path / str(number)
        shutil.copytree(store_dir, directory)
        if not is_running:
            for name, size in sizes.items():
                os.truncate(directory / "packs" / name, size)
        async with await open_store(directory) as store:
            if is_running:
                assert await there(store, digests) == set(digests)
                for name, size in sizes.items():
                    os.truncate(directory / "packs" / name, size)
            left = await there(store, digests)
            assert len(left) >= len(set(digests)) - 4 * len(sizes)  # not the whole stage
        make_index_anew(directory)
        async with await open_store(directory) as store:
            assert await there(store, digests) == left, sizes
        shutil.rmtree(directory)


@pytest.mark.parametrize("harm", ["cut", "damage"])
async def test_what_was_accepted_before_a_path_info_does_not_hang_on_the_end_of_its_packs(store_dir: Path, harm: str) -> None:
    """The index is lost as well, before anybody has noticed."""
    digests = contents(store_dir)
    for pack in packs(store_dir):
        last = entries(pack)[-1]
        if last.kind is Kind.COMMITTED:
            os.truncate(pack, last.offset - 1)
            if harm == "damage":
                os.truncate(pack, last.end)
    shutil.rmtree(store_dir / "index")
    async with await open_store(store_dir) as store:
        assert await there(store, digests) == set(digests)


async def test_what_was_not_accepted_stays_away_where_the_pack_was_cut_before(tmp_path: Path) -> None:
    """A pack of which more was accepted once than was left of it: the rest is written anew by a stage that is not accepted."""
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        async with begun(store) as stage:
            node = await stage_tree(store, stage, TREE)
            await stage.accept()
        await store.path_infos.put(PathInfo(PATH, node, await store.nar.calculate(node)))
    [staged] = [pack for pack in packs(directory) if any(entry.kind is Kind.STAGED for entry in entries(pack))]
    os.truncate(staged, entries(staged)[2].end)
    never = noise(900_000, "never")
    refused = Digest.of(never)
    async with await open_store(directory) as store:
        await put_tree(store, TREE)
        await store.check()  # all of it was put again
        async with begun(store) as stage:
            await stage_tree(store, stage, {b"never": TreeFile(never)})
            assert sum(entry.kind is Kind.STAGED for entry in entries(staged)) == 2
            shutil.copytree(directory, tmp_path / "killed")  # as it is left when the process dies here
    shutil.rmtree(tmp_path / "killed/index")
    async with await open_store(tmp_path / "killed") as store:
        assert await store.blobs.missing([refused]) == {refused}
        assert await is_whole(store, node, TREE)

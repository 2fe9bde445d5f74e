"""copy_files: what is recorded, in which order, and what an error leaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath, fixed_output_path
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.operations.paths.copy_files import copy_files
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.operations.paths.path_copies import Copied, Status
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.faults import FaultyPathInfos, failing
from tvix_store.testing.trees import Tree, TreeFile


class Watched:
    """A PathInfoService that is slow with some, and sees whether references come first."""

    def __init__(self, inner: PathInfoService) -> None:
        self._inner = inner
        self.list = inner.list
        self.get = inner.get
        self.get_many = inner.get_many
        self.existing = inner.existing
        self.put_paths: list[StorePath] = []

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        for reference in path_info.references:
            assert reference == path_info.store_path or await self.get(reference.output_hash)
        await asyncio.sleep(path_info.store_path.output_hash[-1] % 3 / 1000)
        self.put_paths.append(path_info.store_path)
        return await self._inner.put(path_info, trust, requires=requires, calculated=calculated)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as store:
        yield store


def path(number: int) -> StorePath:
    return StorePath(number.to_bytes(20, "big"), f"path-{number}")


class Source:
    """Files, and what is stated of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, store_path: StorePath) -> Path:
        return self.directory / str(store_path)

    def make(self, store_path: StorePath, *references: StorePath, tree: Tree | None = None) -> StatedPath:
        tree = tree or {b"name": TreeFile(store_path.name.encode()), b"a": TreeFile(b"everywhere", executable=True)}
        trees.write(tree, self.file(store_path))
        nar = trees.nar(tree)
        return StatedPath(store_path, NarFacts(len(nar), hashlib.sha256(nar).digest()), references)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


async def copied(store: Store, source: Source, paths: list[StatedPath], jobs: int = 4) -> dict[StorePath, Copied]:
    return {each.store_path: each async for each in copy_files(store, paths, source.file, jobs=jobs)}


@pytest.mark.parametrize("jobs", [1, 4])
async def test_references_are_recorded_first(store: Store, source: Source, jobs: int) -> None:
    graph = {n: [path(m) for m in range(n) if n % (m + 2) == 0] + [path(n)] * (n % 2) for n in range(40)}
    stated = [source.make(path(n), *references) for n, references in reversed(graph.items())]
    watched = Watched(store.path_infos)
    done = await copied(replace(store, path_infos=watched), source, stated, jobs)
    assert {each.status for each in done.values()} == {Status.COPIED}
    assert sorted(watched.put_paths) == [path(n) for n in range(40)]
    for each in stated:
        found = await store.path_infos.get(each.store_path.output_hash)
        assert found is not None
        assert found == each.path_info(found.node)
        assert await store.nar.calculate(found.node) == each.nar


async def test_paths_and_bytes_are_counted(store: Store, source: Source) -> None:
    stated = [source.make(path(n), tree=TreeFile(noise(n * 5_000_000, str(n)))) for n in range(3)]
    for _ in range(2):  # copied, then known
        paths = size = 0

        def count(more_paths: int, more: int) -> None:
            nonlocal paths, size
            paths, size = paths + more_paths, size + more

        async for _each in copy_files(store, stated, source.file, progress=count):
            pass
        assert (paths, size) == (3, sum(each.nar.size for each in stated))


async def test_what_is_wrong_with_a_path_keeps_it_and_its_referrers_alone(store: Store, source: Source) -> None:
    bad, good = source.make(path(1)), source.make(path(2))
    above, top = source.make(path(3), path(1), path(2)), source.make(path(4), path(3))
    bad = replace(bad, nar=replace(bad.nar, size=bad.nar.size + 8))
    done = await copied(store, source, [top, bad, good, above])
    assert {each: done[each].status for each in done} == {
        path(1): Status.FAILED,
        path(2): Status.COPIED,
        path(3): Status.LEFT_OUT,
        path(4): Status.LEFT_OUT,
    }
    assert "its NAR hash is" in str(done[path(1)].error)
    assert [each.store_path async for each in store.path_infos.list()] == [path(2)]


async def test_a_false_content_address_is_refused(store: Store, source: Source) -> None:
    stated = source.make(path(1))
    true = ContentAddress(Method.NAR, NixHash("sha256", stated.nar.sha256))
    named = source.make(
        fixed_output_path("path-1", stated.nar.sha256),
        tree={b"name": TreeFile(b"path-1"), b"a": TreeFile(b"everywhere", executable=True)},
    )
    done = await copied(store, source, [replace(stated, ca=true), replace(named, ca=true)])
    assert done[path(1)].status is Status.FAILED
    assert done[named.store_path].status is Status.COPIED


async def test_signatures_are_united(store: Store, source: Source) -> None:
    stated = source.make(path(1))
    signatures = [Signature(f"key-{n}", bytes([n]) * 64) for n in range(2)]
    for n, status in enumerate((Status.COPIED, Status.KNOWN)):
        done = await copied(store, source, [replace(stated, signatures=(signatures[n],))])
        assert done[path(1)].status is status
    found = await store.path_infos.get(path(1).output_hash)
    assert found is not None
    assert list(found.signatures) == signatures


async def test_a_store_that_goes_away_ends_the_copy(store: Store, source: Source) -> None:
    stated = [source.make(path(n), *([path(n - 1)] if n else [])) for n in range(10)]
    faulty = replace(store, path_infos=FaultyPathInfos(store.path_infos, failing(UnavailableError("gone"), after=5)))
    with pytest.raises(UnavailableError, match="gone"):
        await copied(faulty, source, stated)
    there = [each.store_path async for each in store.path_infos.list()]
    assert there == [path(n) for n in range(len(there))]
    assert len(asyncio.all_tasks()) == 1
    done = await copied(store, source, stated)
    assert [done[path(n)].status is Status.KNOWN for n in range(10)] == [path(n) in there for n in range(10)]


async def test_a_copy_that_is_left_early_stops(store: Store, source: Source) -> None:
    copying = copy_files(store, [source.make(path(n)) for n in range(50)], source.file)
    await anext(copying)
    await copying.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_references_in_a_circle_are_refused(store: Store, source: Source) -> None:
    with pytest.raises(InvalidError, match="references go round in a circle"):
        await copied(store, source, [source.make(path(1), path(2)), source.make(path(2), path(1))])

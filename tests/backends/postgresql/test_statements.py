"""How many statements an operation takes: each is a round trip to the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.backends.postgresql.conftest import settled
from tvix_store.backends.postgresql import Settings, open_offer
from tvix_store.errors import IncompleteError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.services.removal import used_records
from tvix_store.testing.content import missing, noise, stream
from tvix_store.testing.contracts.directories import all_below, leaf, parent
from tvix_store.testing.contracts.path_infos import path, signature


def path_info(name: str, *references: str) -> PathInfo:
    return PathInfo(path(name), SymlinkNode(b"x"), NarFacts(1, noise(32, name)), tuple(map(path, references)))


class Counted:
    """Takes what was asked since it was taken last."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    async def taken(self) -> int:
        await settled()
        count = len(self._asked)
        self._asked.clear()
        return count


@pytest.fixture
def counted(asked: list[str]) -> Counted:
    return Counted(asked)


async def test_a_store_that_is_there_is_opened_by_two_statements(counted: Counted, settings: Settings) -> None:
    for most in (40, 2):
        offer = await open_offer(settings)
        assert await counted.taken() <= most
        await offer.close()


async def test_path_infos_are_got_by_one_statement_and_put_by_one_to_three(
    counted: Counted, settings: Settings, asked: list[str]
) -> None:
    offer = await open_offer(settings)
    path_infos = offer.path_infos
    assert path_infos is not None
    await counted.taken()
    low, high = path_info("low"), path_info("high", "high", "low")
    for info in (low, high):
        await path_infos.put(info, requires=[each for each in info.references if each != info.store_path])
        assert await counted.taken() == 1, "a new path"
    await path_infos.put(high, requires=[low.store_path])
    assert await counted.taken() == 2, "a path that is there as it is put"
    await path_infos.put(replace(high, signatures=(signature("key"),)))
    assert await counted.taken() == 3, "a path that is merged"
    with pytest.raises(IncompleteError, match="nowhere"):
        await path_infos.put(path_info("other", "nowhere"), requires=[path("nowhere")])
    assert await counted.taken() == 2
    hashes = [each.store_path.output_hash for each in (low, high)]
    await path_infos.get(hashes[0])
    assert await counted.taken() == 1
    assert len(await path_infos.get_many(hashes)) == len(await path_infos.existing(hashes)) == 2
    assert await counted.taken() == 2
    assert [each async for each in path_infos.list()]
    assert await counted.taken() == 1
    await offer.close()


async def test_a_tree_is_read_by_a_statement_a_level_and_put_by_two(counted: Counted, settings: Settings) -> None:
    offer = await open_offer(settings)
    directories = offer.directories
    assert directories is not None
    await counted.taken()
    level = [leaf(f"{n}") for n in range(64)]
    graph = list(level)
    depth = 1
    while len(level) > 1:
        level = [parent(one=one, other=other) for one, other in zip(level[::2], level[1::2], strict=True)]
        graph += level
        depth += 1
    root = await directories.put(stream(graph))
    assert await counted.taken() == 2, "one asks what is new"
    assert len(await all_below(directories, root)) == len(graph)
    assert await counted.taken() == depth
    await directories.put(stream(graph))
    assert await counted.taken() == 1, "nothing is new"
    await directories.get(root)
    assert await counted.taken() == 1
    large = Directory({b"%06d" % n: FileNode(missing("x"), n) for n in range(2000)})
    root = await directories.put(stream([large, leaf("beside"), top := parent(large=large, beside=leaf("beside"))]))
    await counted.taken()
    assert root == top.digest
    assert set(await all_below(directories, root)) == {top, large, leaf("beside")}
    assert await counted.taken() == 3, "a large directory comes by itself"
    await offer.close()


async def test_records_are_changed_and_listed_by_one_statement(counted: Counted, settings: Settings) -> None:
    offer = await open_offer(settings)
    records = offer.records
    assert records is not None
    await counted.taken()
    await records.put({b"test:%d" % n: b"value" for n in range(1000)})
    assert await counted.taken() == 1
    await records.get(b"test:1")
    assert await counted.taken() == 1
    assert len([each async for each in records.list(b"test:1")]) == 111
    assert await counted.taken() == 1
    await records.delete([b"test:%d" % n for n in range(500)])
    assert await counted.taken() == 1
    assert await records.exchange({b"test:700": (b"value", b"new"), b"test:701": (b"value", None)}) == 2
    assert await counted.taken() == 4, "two, in a transaction"
    assert await records.exchange({b"test:700": (b"new", b"newer")}) == 1
    assert await counted.taken() == 1
    await offer.close()


async def test_paths_are_removed_by_ten_statements_for_hundreds(counted: Counted, settings: Settings) -> None:
    offer = await open_offer(settings)
    path_infos, removal, records = offer.path_infos, offer.removal, offer.records
    assert path_infos is not None
    assert removal is not None
    assert records is not None
    infos = [path_info(f"{n}", *([f"{n - 1}"] if n else ())) for n in range(200)]
    await asyncio.gather(*map(path_infos.put, infos))
    hashes = [each.store_path.output_hash for each in infos]
    await records.put(used_records(dict.fromkeys(hashes, 1)))
    await counted.taken()
    assert await removal.remove(hashes, unused_since=2) == set(hashes)
    assert await counted.taken() <= 10
    await offer.close()

"""Damage to the index that no lookup would notice: the scrub does, and tells, and the next open heals it."""

from __future__ import annotations

import asyncio
import struct
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.backends.local.flip_index import PAGE, fill, look, path_info
from tests.backends.local.store_files import index_file, opened_index
from tvix_store.backends.local import index_scrub, open_store
from tvix_store.backends.local.index_damage import FILE as DAMAGED
from tvix_store.backends.local.index_scrub import look_through
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.testing.content import stream


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    async with await open_store(tmp_path / "store") as store:
        await fill(store)
    return tmp_path / "store"


def flip_bit(file: Path, at: int, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


async def test_a_table_whose_name_is_damaged_is_noticed_when_the_store_is_opened(filled: Path) -> None:
    file = index_file(filled)
    flip_bit(file, file.read_bytes().rindex(b"records"), 0)
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}


async def test_a_row_that_a_damaged_key_hides_is_noticed_by_the_scrub(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_scrub, "_BEGIN", 0.05)
    output_hash = path_info(7).store_path.output_hash
    file = index_file(filled)
    flip_bit(file, file.read_bytes().rindex(output_hash), 0)
    async with await open_store(filled) as store:
        for _ in range(1000):
            if (filled / DAMAGED).exists():
                break
            await asyncio.sleep(0.02)
        with pytest.raises(UnavailableError, match="damaged"):
            await store.check()
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}


def test_the_scrub_finds_rows_that_a_table_counts_and_does_not_have(filled: Path) -> None:
    with closing(opened_index(filled)) as index:
        look_through(index)
        assert not (filled / DAMAGED).exists()
        index.tell_of_hidden_rows(index.records, 1)
    assert (filled / DAMAGED).exists()


@pytest.mark.parametrize("bit", range(8))
async def test_a_damaged_root_page_is_told_of_and_mended_by_the_next_open(filled: Path, bit: int) -> None:
    file = index_file(filled)
    data = file.read_bytes()
    (root,) = struct.unpack_from("<40xQ", data, data.rindex(b"path_infos") + len(b"path_infos"))  # in MDB_db
    flip_bit(file, root * PAGE + 15, bit)  # the high byte of the page's upper bound
    async with await open_store(filled) as store:
        with suppress(CorruptError):
            look_through(store.blobs._engine.index)  # type: ignore[attr-defined]  # of the local backend
        if (filled / DAMAGED).exists():
            with pytest.raises(UnavailableError, match="damaged"):
                await store.check()
        else:  # nobody reads that bit
            assert await look(store) == {"right"}
    async with await open_store(filled) as store:
        assert await look(store) == {"right"}


@pytest.mark.parametrize("places", [(1, 0), (0, 0)], ids=["exchanged", "one of them twice"])
def test_path_infos_that_a_damaged_page_has_out_of_order_are_not_listed(filled: Path, places: tuple[int, int]) -> None:
    file = index_file(filled)
    data = bytearray(file.read_bytes())
    (page,) = struct.unpack_from("<40xQ", data, data.rindex(b"path_infos") + len(b"path_infos"))  # in MDB_db
    if not data[page * PAGE + 10] & 2:  # no leaf: its first child is one
        (node,) = struct.unpack_from("<H", data, page * PAGE + 16)
        (page,) = struct.unpack_from("<I", data, page * PAGE + node)
    rows = struct.unpack_from("<2H", data, page * PAGE + 16)
    struct.pack_into("<2H", data, page * PAGE + 16, *(rows[place] for place in places))
    file.write_bytes(data)
    with closing(opened_index(filled)) as index, pytest.raises(CorruptError, match="not in order"):
        index.path_infos_behind(b"", 1000)


async def test_large_path_infos_are_read_few_at_a_time(tmp_path: Path) -> None:
    """A page of 256 could have a GiB, for each who lists."""
    references = tuple(StorePath(number.to_bytes(20, "big"), "x" * 200) for number in range(3000))
    paths = [StorePath(bytes([number] * 20), "large") for number in range(1, 6)]
    async with await open_store(tmp_path) as store:
        node = FileNode(await store.blobs.put(stream([b"content"])), 7)
        facts = await store.nar.calculate(node)
        for path in paths:
            await store.path_infos.put(PathInfo(path, node, facts, references))
        assert [each.store_path async for each in store.path_infos.list()] == paths
        assert [each.store_path async for each in store.path_infos.list(paths[1].output_hash)] == paths[2:]
    with closing(opened_index(tmp_path)) as index:
        rows, last = index.path_infos_behind(b"", 1000)
        assert 1 < len(rows) < 5
        assert last == rows[-1][0]

"""A pack has one owner, and a writer leaves nothing behind that it does not use: no descriptor, no lock, no name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tvix_store.backends.local import pack_writer
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_path
from tvix_store.backends.local.records import HEADER_SIZE, Kind, NewRecord
from tvix_store.errors import UnavailableError

SEAL_SIZE = 100_000
COMMITTED_MARK = HEADER_SIZE
"""Bytes of the entry that begins the writing to a pack of another owner."""


class Watched(Durability):
    """Syncs nothing. It notes how large a file was when it was synced, and whether a pack had its name."""

    def __init__(self, packs: Path) -> None:
        super().__init__(packs.parent)
        self._packs = packs
        self.data: list[int] = []
        self.files: list[tuple[int, bool]] = []
        self.fails = False

    def cut(self, fd: int, size: int) -> None:
        if self.fails:
            raise UnavailableError("as the test wants it")
        super().cut(fd, size)

    def _fdatasync(self, fd: int) -> None:
        self.data.append(os.fstat(fd).st_size)

    def _fsync(self, fd: int) -> None:
        if self.fails:
            raise OSError("as the test wants it")
        self.files.append((os.fstat(fd).st_size, any(name.endswith(".pack") for name in os.listdir(self._packs))))


class Packs:
    """A directory of packs, and what an index would say of them."""

    def __init__(self, store: Path) -> None:
        self.directory = store / "packs"
        self.directory.mkdir()
        self.durability = Watched(self.directory)
        self.committed: dict[int, int] = {}

    def writer(self) -> PackWriter:
        return PackWriter(self.directory, lambda number: self.committed.get(number, 0), lambda: 0, SEAL_SIZE, self.durability)

    def left_by_another(self, size: int = 1000) -> int:
        """A pack that a writer has left, and its number."""
        writer = self.writer()
        writer.next_pack()
        number = writer.number
        writer.append([record(size)])
        self.committed[number] = writer.size
        writer.close()
        return number


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path)


def record(size: int) -> NewRecord:
    return NewRecord(Kind.CHUNK, bytes(32), bytes(size), size)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


Refusal: TypeAlias = Callable[[Packs, int], Callable[[], None]]
"""Has a pack refused; the result undoes that."""


def locked(packs: Packs, number: int) -> Callable[[], None]:
    """Let another writer have a pack."""
    other = packs.writer()
    other.next_pack()
    assert other.number == number
    return other.close


def unknown(packs: Packs, number: int) -> Callable[[], None]:
    del packs.committed[number]
    return lambda: None


def cut_short(packs: Packs, number: int) -> Callable[[], None]:
    os.truncate(pack_path(packs.directory, number), packs.committed[number] - 1)
    return lambda: None


def full(packs: Packs, number: int) -> Callable[[], None]:
    packs.committed[number] = SEAL_SIZE
    return lambda: None


def no_pack(packs: Packs, number: int) -> Callable[[], None]:
    path = pack_path(packs.directory, number)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    return lambda: None


@pytest.mark.parametrize("refusal", [locked, unknown, cut_short, full, no_pack])
def test_of_a_pack_that_is_not_taken_over_nothing_is_held(packs: Packs, refusal: Refusal) -> None:
    number = packs.left_by_another()
    undo = refusal(packs, number)
    content, before = pack_path(packs.directory, number).read_bytes(), descriptors()
    writer = packs.writer()
    writer.next_pack()
    assert writer.number != number
    assert descriptors() == before + 1
    writer.close()
    assert descriptors() == before
    assert pack_path(packs.directory, number).read_bytes() == content
    undo()


def test_a_pack_that_cannot_be_cut_is_let_go(packs: Packs) -> None:
    number = packs.left_by_another()
    before = descriptors()
    packs.durability.fails = True
    with pytest.raises(UnavailableError):
        packs.writer().next_pack()
    assert descriptors() == before
    packs.durability.fails = False
    writer = packs.writer()
    writer.next_pack()
    assert writer.number == number
    writer.close()


def test_of_a_pack_that_cannot_be_made_nothing_is_left(packs: Packs) -> None:
    before = descriptors()
    packs.durability.fails = True
    with pytest.raises(UnavailableError):
        packs.writer().next_pack()
    assert descriptors() == before
    assert os.listdir(packs.directory) == []


def test_a_number_that_another_has_taken_just_now_is_left_to_it(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        pack_path(packs.directory, number).write_bytes(b"another's")
    monkeypatch.setattr(pack_writer, "pack_numbers", lambda _: [])
    before = descriptors()
    writer = packs.writer()
    writer.next_pack()
    assert writer.number == 3
    assert descriptors() == before + 1
    writer.close()
    assert sorted(os.listdir(packs.directory)) == [f"{number:08x}.pack" for number in (1, 2, 3)]
    assert pack_path(packs.directory, 1).read_bytes() == b"another's"


def test_two_writers_never_have_the_same_pack(packs: Packs) -> None:
    """Neither a new one, nor one that another has left."""
    left = packs.left_by_another()
    writers = [packs.writer() for _ in range(4)]
    for writer in writers:
        writer.next_pack()
        packs.committed[writer.number] = writer.size
    assert {left, *(writer.number for writer in writers)} == set(range(left, left + 4))
    for writer in writers:
        writer.close()


def test_a_pack_has_its_first_bytes_on_the_disk_before_it_has_its_name(packs: Packs) -> None:
    writer = packs.writer()
    writer.next_pack()
    writer.close()
    assert packs.durability.files[0] == (PREFIX_SIZE, False)
    assert packs.durability.files[1][1]  # the names in the directory


def test_what_another_owner_has_left_is_synced_before_anything_relies_on_it(packs: Packs) -> None:
    number = packs.left_by_another()
    writer = packs.writer()
    writer.next_pack()
    assert packs.durability.data == []
    writer.sync()
    assert packs.durability.data == [packs.committed[number]]
    writer.sync()
    assert packs.durability.data == [packs.committed[number]], "once"
    writer.close()


def test_what_takes_the_place_of_what_was_taken_back_is_synced(packs: Packs) -> None:
    writer = packs.writer()
    writer.next_pack()
    writer.append([record(1000)])
    writer.sync()
    writer.rewind()
    assert os.path.getsize(pack_path(packs.directory, writer.number)) == PREFIX_SIZE
    writer.append([record(500)])
    writer.sync()
    assert packs.durability.data == [PREFIX_SIZE + HEADER_SIZE + size for size in (1000, 500)]
    writer.close()


def test_only_what_no_index_counts_is_taken_back(packs: Packs) -> None:
    number = packs.left_by_another()
    writer = packs.writer()
    writer.next_pack()
    size = packs.committed[number]
    writer.append([record(1000)])
    writer.keep()
    assert writer.size == size + COMMITTED_MARK + HEADER_SIZE + 1000
    packs.committed[number] = writer.size
    writer.append([record(2000)])
    writer.cut()
    assert writer.size == packs.committed[number] == os.path.getsize(pack_path(packs.directory, number))
    writer.append([record(10)])
    assert os.path.getsize(pack_path(packs.directory, number)) == packs.committed[number] + HEADER_SIZE + 10
    writer.close()


def test_a_pack_takes_entries_until_it_is_full(packs: Packs) -> None:
    writer = packs.writer()
    assert writer.is_full
    writer.next_pack()
    writer.append([record(SEAL_SIZE - PREFIX_SIZE - HEADER_SIZE - 1)])
    assert not writer.is_full
    writer.append([record(1)])
    assert writer.is_full
    writer.keep()
    packs.committed[writer.number] = writer.size
    writer.next_pack()
    assert (writer.number, writer.size) == (2, PREFIX_SIZE)
    writer.close()

"""View: what the footers of a bucket say, in an LMDB environment on this machine.

All processes of the machine share it. It is a cache: where it is missing, damaged, or of another bucket, a new one is begun.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import lmdb

from tvix_store.backends.objectstore.packed.contents import Kind, NarRow, Place
from tvix_store.backends.objectstore.packed.pack import Footer, commit_time
from tvix_store.backends.objectstore.packed.view_environment import Txn, ViewEnvironment, boot_id, mending
from tvix_store.backends.objectstore.packed.view_rows import PLACE, DamagedRowError, content_key, opened, sealed
from tvix_store.model.path_info import NarFacts

_NUMBER = struct.Struct(">I")
_LISTED = struct.Struct("<d36s")
_NAR = struct.Struct("<Q32s")


class Segment(NamedTuple):
    """A segment of a chunk list: where it lies, where in the blob its first chunk begins, and the size of the blob."""

    place: Place
    start: int
    size: int


class Record(NamedTuple):
    """A record, and where it lies. `start` as in `Content`."""

    kind: Kind
    digest: bytes
    start: int
    place: Place


class Commit(NamedTuple):
    """A commit that is to be added to a view: its key, and its footer."""

    key: str
    footer: Footer


class View(ViewEnvironment):
    """Where the contents of a bucket lie. Safe to use from many threads and processes; its methods block, most for microseconds."""

    _views: ClassVar[dict[Path, View]] = {}
    _all: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, directory: Path, identity: bytes) -> None:
        super().__init__(directory, identity)
        self._holders = 0
        self._keys: dict[tuple[lmdb.Environment, int], str] = {}

    @classmethod
    def acquire(cls, directory: Path, identity: bytes) -> View:
        """The view in `directory` of the bucket with this identity. One environment must not be opened twice by a process.

        Raises:
            DeniedError, ExhaustedError, UnavailableError: the disk does not let us.
        """
        with cls._all:
            place = Path(os.path.realpath(directory))
            view = cls._views.get(place)
            if view is None or view.identity != identity:
                view = cls._views[place] = cls(place, identity)
            view._holders += 1
            return view

    def release(self) -> None:
        with self._all:
            self._holders -= 1
            if self._holders == 0:
                if self._views.get(self.directory) is self:
                    del self._views[self.directory]
                self.close()

    @mending
    def places(self, kind: Kind, digests: Iterable[bytes]) -> list[Place | None]:
        """Where chunks or directories lie; None for each that is not known."""
        with self.reading() as txn:
            return [self._place(txn, content_key(kind, digest)) for digest in digests]

    @mending
    def segment(self, blob: bytes, at: int) -> Segment | None:
        """The segment of a blob's chunk list that has the byte `at` of the blob."""
        table = self.tables[0]
        head = content_key(Kind.LIST, blob)[:-8]
        wanted = content_key(Kind.LIST, blob, at)
        with self.reading() as txn, txn.cursor(table) as cursor:
            found = cursor.set_range(wanted)
            if not (found and cursor.key() == wanted) and not (cursor.prev() if found else cursor.last()):
                return None
            key = cursor.key()
            if not key.startswith(head):
                return None
            number, offset, stored, length, size = PLACE.unpack(opened(key, cursor.value()))
            return Segment(Place(self._key(txn, number), offset, stored, length), int.from_bytes(key[-8:], "big"), size)

    @mending
    def known(self, names: Iterable[tuple[Kind, bytes, int]]) -> set[tuple[Kind, bytes, int]]:
        """Those of the records that are known."""
        with self.reading() as txn:
            return {name for name in names if txn.get(content_key(*name), db=self.tables[0]) is not None}

    @mending
    def nar(self, node: bytes) -> NarFacts | None:
        """The facts of a NAR, by the digest of its node."""
        with self.reading() as txn:
            row = txn.get(node, db=self.tables[3])
            return None if row is None else NarFacts(*_NAR.unpack(opened(node, row)))

    @mending
    def unknown_commits(self, keys: Iterable[str]) -> list[str]:
        """Those of the commits whose footers are not here yet."""
        with self.reading() as txn:
            return [key for key in keys if txn.get(key.encode(), db=self.tables[1]) is None]

    @mending
    def add(self, commits: Sequence[Commit]) -> None:
        """Take what commits make visible. The newest place of a record counts."""
        with self.writing() as txn:
            newest = self.meta(txn, b"newest")
            for commit in sorted(commits):
                if txn.get(commit.key.encode(), db=self.tables[1]) is None:
                    self._add(txn, commit)
                    newest = max(newest, commit.key.encode())
            self.put_meta(txn, b"newest", newest)

    @mending
    def add_nar(self, row: NarRow) -> None:
        with self.writing() as txn:
            self._put_nar(txn, row)

    @mending
    def forget(self, records: Iterable[Record]) -> None:
        """Forget records that turned out to be damaged, where they still lie there, and the facts of NARs that may contain them."""
        with self.writing() as txn:
            for record in records:
                key = content_key(record.kind, record.digest, record.start)
                if self._place(txn, key) == record.place:
                    txn.delete(key, db=self.tables[0])
            txn.drop(self.tables[3], delete=False)
            self.put_meta(txn, b"epoch", (self._epoch(txn) + 1).to_bytes(8, "little"))

    @mending
    def records_in(self, key: str) -> list[Record]:
        """All that lies in a pack, in its order. Looks at all records: 1 s for a million."""
        found: list[Record] = []
        with self.reading() as txn:
            packed = txn.get(key.encode(), db=self.tables[1])
            if packed is None:
                return found
            (number,) = _NUMBER.unpack(opened(key.encode(), packed))
            with txn.cursor(self.tables[0]) as cursor:
                for each, row in cursor:
                    its_number, offset, stored, length, _ = PLACE.unpack_from(row)
                    if its_number == number:
                        start = int.from_bytes(each[33:], "big")
                        found.append(Record(Kind(each[0]), each[1:33], start, Place(key, offset, stored, length)))
        return sorted(found, key=lambda record: record.place)

    @property
    @mending
    def epoch(self) -> int:
        """Changes when something was forgotten. As long as nothing was, it is 0, and the same for all front ends."""
        with self.reading() as txn:
            return self._epoch(txn)

    @property
    @mending
    def newest(self) -> str:
        """The key of the newest commit; empty where there is none."""
        with self.reading() as txn:
            return self.meta(txn, b"newest").decode()

    @property
    @mending
    def age(self) -> float:
        """Seconds since all commits that there were then are known; infinite for a view that was never filled."""
        with self.reading() as txn:
            row = self.meta(txn, b"listed")
        if not row:
            return float("inf")
        at, boot = _LISTED.unpack(row)
        age = time.monotonic() - at
        return age if boot == boot_id() and age >= 0 else float("inf")

    @mending
    def note_listing(self, began: float, newest: int) -> None:
        """Note that all commits of the time `began` (monotonic) are known. `newest` is the object store's time of the last one."""
        with self.writing() as txn:
            self.put_meta(txn, b"listed", _LISTED.pack(began, boot_id()))
            self.put_meta(txn, b"listed to", newest.to_bytes(8, "little"))

    @property
    @mending
    def listed_to(self) -> int:
        """Up to what time, in the keys of commits, all are known: 0 where they were never listed."""
        with self.reading() as txn:
            newest = self.meta(txn, b"newest")
            written = int.from_bytes(self.meta(txn, b"listed to"), "little")
            return min(written, commit_time(newest.decode())) if newest else 0

    def _place(self, txn: Txn, key: bytes) -> Place | None:
        row = txn.get(key, db=self.tables[0])
        if row is None:
            return None
        number, offset, stored, length, _ = PLACE.unpack(opened(key, row))
        return Place(self._key(txn, number), offset, stored, length)

    def _key(self, txn: Txn, number: int) -> str:
        """The key of a pack."""
        known = self._keys.get((self.env, number))
        if known is None:
            name = _NUMBER.pack(number)
            row = txn.get(name, db=self.tables[2])
            if row is None:
                raise DamagedRowError
            known = self._keys[self.env, number] = opened(name, row).decode()
        return known

    def _number(self, txn: Txn, key: str) -> int:
        """The number of a pack, which gets one now where it has none."""
        name = key.encode()
        row = txn.get(name, db=self.tables[1])
        if row is not None:
            return int(_NUMBER.unpack(opened(name, row))[0])
        number = txn.stat(self.tables[2])["entries"]
        packed = _NUMBER.pack(number)
        txn.put(packed, sealed(packed, name), db=self.tables[2])
        txn.put(name, sealed(name, packed), db=self.tables[1])
        return int(number)

    def _add(self, txn: Txn, commit: Commit) -> None:
        numbers = {key: self._number(txn, key) for key in [commit.key, *(part.key for part in commit.footer.parts if part.key)]}
        for entry in commit.footer.entries(commit.key):
            key = content_key(entry.kind, entry.digest, entry.start)
            place = entry.place
            row = PLACE.pack(numbers[place.key], place.offset, place.stored, place.length, entry.size)
            txn.put(key, sealed(key, row), db=self.tables[0])
        for nar in commit.footer.nars:
            self._put_nar(txn, nar)

    def _put_nar(self, txn: Txn, row: NarRow) -> None:
        txn.put(row.node, sealed(row.node, _NAR.pack(row.facts.size, row.facts.sha256)), db=self.tables[3])

    def _epoch(self, txn: Txn) -> int:
        return int.from_bytes(self.meta(txn, b"epoch"), "little")

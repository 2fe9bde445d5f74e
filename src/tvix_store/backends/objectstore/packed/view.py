"""View: what the footers of a bucket say, in an LMDB environment on this machine.

All processes of the machine share it. It is a cache: where it is missing, damaged, or of another bucket, a new one is begun. Its
commits are not synced one by one. So a new one is begun also where the machine has started anew, and the view was not synced as the
last process closed it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import update_wrapper
from pathlib import Path
from typing import ClassVar, Concatenate, NamedTuple, ParamSpec, Self, TypeAlias, TypeVar

import lmdb

from tvix_store.backends.objectstore.packed.contents import Kind, NarRow, Place
from tvix_store.backends.objectstore.packed.pack import Footer, commit_time
from tvix_store.backends.objectstore.packed.view_rows import PLACE, DamagedRowError, content_key, opened, sealed
from tvix_store.errors import ClosedError, ExhaustedError, UnavailableError, of_disk
from tvix_store.model.path_info import NarFacts

P = ParamSpec("P")
T = TypeVar("T")
Txn: TypeAlias = "lmdb.Transaction[bytes]"

FORMAT = b"tvix-store view 1"
_FILE = "view.mdb"
_SYNCED = "synced"
"""The file that says up to which transaction the view was synced when it was closed."""
_MAP_SIZE = 1 << 38
"""Address space in bytes. Not disk, not memory: the file grows as it is used."""
_TABLES = (b"contents", b"numbers", b"packs", b"nars", b"meta")
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


def _mending(method: Callable[Concatenate[View, P], T]) -> Callable[Concatenate[View, P], T]:
    """Begin a new view where this one is damaged, and do it once more."""

    def call(self: View, /, *args: P.args, **kwargs: P.kwargs) -> T:
        env = self._opened
        try:
            return method(self, *args, **kwargs)
        except (lmdb.MapFullError, lmdb.DiskError) as error:
            raise ExhaustedError(f"the view in {self.directory} cannot grow: {error}") from None
        except (DamagedRowError, struct.error, lmdb.Error):
            self._begin_anew(env)
            return method(self, *args, **kwargs)

    return update_wrapper(call, method)


class View:
    """Where the contents of a bucket lie. Safe to use from many threads and processes; its methods block, most for microseconds."""

    _views: ClassVar[dict[Path, View]] = {}
    _all: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, directory: Path, identity: bytes) -> None:
        self.directory = directory
        self.identity = identity
        self._users = 0
        self._lock = threading.Lock()
        self._keys: dict[int, str] = {}
        self._env, self._tables = self._open()

    @classmethod
    def acquire(cls, directory: Path, identity: bytes) -> Self:
        """The view in `directory` of the bucket with this identity. One environment must not be opened twice by a process.

        Raises:
            DeniedError, ExhaustedError, UnavailableError: the disk does not let us.
        """
        with cls._all:
            place = Path(os.path.realpath(directory))
            view = cls._views.get(place)
            if view is None or view.identity != identity:
                view = cls._views[place] = cls(place, identity)
            view._users += 1
            return view  # type: ignore[return-value]  # nobody derives from it

    def release(self) -> None:
        with self._all:
            self._users -= 1
            if self._users == 0:
                if self._views.get(self.directory) is self:
                    del self._views[self.directory]
                with suppress(lmdb.Error, OSError):
                    self._env.sync(True)
                    (self.directory / _SYNCED).write_text(str(self._env.info()["last_txnid"]))
                self._env.close()

    @_mending
    def places(self, kind: Kind, digests: Iterable[bytes]) -> list[Place | None]:
        """Where chunks or directories lie; None for each that is not known."""
        with self._reading() as txn:
            return [self._place(txn, content_key(kind, digest)) for digest in digests]

    @_mending
    def segment(self, blob: bytes, at: int) -> Segment | None:
        """The segment of a blob's chunk list that has the byte `at` of the blob."""
        table = self._tables[0]
        head = content_key(Kind.LIST, blob)[:-8]
        wanted = content_key(Kind.LIST, blob, at)
        with self._reading() as txn, txn.cursor(table) as cursor:
            found = cursor.set_range(wanted)
            if not (found and cursor.key() == wanted) and not (cursor.prev() if found else cursor.last()):
                return None
            key = cursor.key()
            if not key.startswith(head):
                return None
            number, offset, stored, length, size = PLACE.unpack(opened(key, cursor.value()))
            return Segment(Place(self._key(txn, number), offset, stored, length), int.from_bytes(key[-8:], "big"), size)

    @_mending
    def known(self, names: Iterable[tuple[Kind, bytes, int]]) -> set[tuple[Kind, bytes, int]]:
        """Those of the records that are known."""
        with self._reading() as txn:
            return {name for name in names if txn.get(content_key(*name), db=self._tables[0]) is not None}

    @_mending
    def nar(self, node: bytes) -> NarFacts | None:
        """The facts of a NAR, by the digest of its node."""
        with self._reading() as txn:
            row = txn.get(node, db=self._tables[3])
            return None if row is None else NarFacts(*_NAR.unpack(opened(node, row)))

    @_mending
    def unknown_commits(self, keys: Iterable[str]) -> list[str]:
        """Those of the commits whose footers are not here yet."""
        with self._reading() as txn:
            return [key for key in keys if txn.get(key.encode(), db=self._tables[1]) is None]

    @_mending
    def add(self, commits: Sequence[Commit]) -> None:
        """Take what commits make visible. The newest place of a record counts."""
        with self._writing() as txn:
            newest = self._meta(txn, b"newest")
            for commit in sorted(commits):
                if txn.get(commit.key.encode(), db=self._tables[1]) is None:
                    self._add(txn, commit)
                    newest = max(newest, commit.key.encode())
            self._put_meta(txn, b"newest", newest)

    @_mending
    def add_nar(self, row: NarRow) -> None:
        with self._writing() as txn:
            self._put_nar(txn, row)

    @_mending
    def forget(self, records: Iterable[Record]) -> None:
        """Forget records that turned out to be damaged, where they still lie there, and the facts of NARs that may contain them."""
        with self._writing() as txn:
            for record in records:
                key = content_key(record.kind, record.digest, record.start)
                if self._place(txn, key) == record.place:
                    txn.delete(key, db=self._tables[0])
            txn.drop(self._tables[3], delete=False)
            self._put_meta(txn, b"epoch", (self._epoch(txn) + 1).to_bytes(8, "little"))

    @_mending
    def records_in(self, key: str) -> list[Record]:
        """All that lies in a pack, in its order. Looks at all records: 1 s for a million."""
        found: list[Record] = []
        with self._reading() as txn:
            packed = txn.get(key.encode(), db=self._tables[1])
            if packed is None:
                return found
            (number,) = _NUMBER.unpack(opened(key.encode(), packed))
            with txn.cursor(self._tables[0]) as cursor:
                for each, row in cursor:
                    its_number, offset, stored, length, _ = PLACE.unpack_from(row)
                    if its_number == number:
                        start = int.from_bytes(each[33:], "big")
                        found.append(Record(Kind(each[0]), each[1:33], start, Place(key, offset, stored, length)))
        return sorted(found, key=lambda record: record.place)

    @property
    @_mending
    def epoch(self) -> int:
        """Changes when something was forgotten. As long as nothing was, it is 0, and the same for all front ends."""
        with self._reading() as txn:
            return self._epoch(txn)

    @property
    @_mending
    def newest(self) -> str:
        """The key of the newest commit; empty where there is none."""
        with self._reading() as txn:
            return self._meta(txn, b"newest").decode()

    @property
    @_mending
    def age(self) -> float:
        """Seconds since all commits that there were then are known; infinite for a view that was never filled."""
        with self._reading() as txn:
            row = self._meta(txn, b"listed")
        if not row:
            return float("inf")
        at, boot = _LISTED.unpack(row)
        age = time.monotonic() - at
        return age if boot == _boot() and age >= 0 else float("inf")

    @_mending
    def note_listing(self, began: float, newest: int) -> None:
        """Note that all commits of the time `began` (monotonic) are known. `newest` is the object store's time of the last one."""
        with self._writing() as txn:
            self._put_meta(txn, b"listed", _LISTED.pack(began, _boot()))
            self._put_meta(txn, b"listed to", newest.to_bytes(8, "little"))

    @property
    @_mending
    def listed_to(self) -> int:
        """Up to what time, in the keys of commits, all are known: 0 where they were never listed."""
        with self._reading() as txn:
            newest = self._meta(txn, b"newest")
            written = int.from_bytes(self._meta(txn, b"listed to"), "little")
            return min(written, commit_time(newest.decode())) if newest else 0

    def _open(self) -> tuple[lmdb.Environment, list[lmdb._Database]]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                try:
                    return self._open_file()
                except (lmdb.Error, DamagedRowError, struct.error) as error:
                    failed = error
                    self._remove()
            raise UnavailableError(f"no view can be made in {self.directory}: {failed}")
        except OSError as error:
            raise of_disk(error, f"no view can be made in {self.directory}: {error.strerror}", UnavailableError) from None

    def _open_file(self) -> tuple[lmdb.Environment, list[lmdb._Database]]:
        env = lmdb.open(
            str(self.directory / _FILE),
            subdir=False,
            map_size=_MAP_SIZE,
            max_dbs=len(_TABLES),
            max_readers=1024,
            sync=False,
            metasync=False,
        )
        try:
            env.reader_check()
            last = str(env.info()["last_txnid"])
            tables = [env.open_db(name) for name in _TABLES]
            with env.begin(write=True) as txn:
                self._claim(txn, tables[4], last)
        except BaseException:
            env.close()
            raise
        return env, tables

    def _claim(self, txn: Txn, meta: lmdb._Database, last: str) -> None:
        """See that the environment is a view of this bucket, and whole; or make it one, where it is new."""
        stated, boot = sealed(b"format", FORMAT + self.identity), sealed(b"boot", _boot())
        found = txn.get(b"format", db=meta)
        if found is None:
            txn.put(b"format", stated, db=meta)
        elif found != stated:
            raise DamagedRowError
        elif txn.get(b"boot", db=meta) != boot:
            synced = self.directory / _SYNCED
            if not synced.exists() or synced.read_text() != last:
                raise DamagedRowError
        txn.put(b"boot", boot, db=meta)

    def _remove(self) -> None:
        for name in (_FILE, f"{_FILE}-lock"):
            with suppress(FileNotFoundError):
                (self.directory / name).unlink()

    @property
    def _opened(self) -> lmdb.Environment:
        return self._env

    def _begin_anew(self, damaged: lmdb.Environment) -> None:
        """Begin a new view, unless another thread has done so. Other processes keep what they have, until they see the damage."""
        with self._lock:
            if self._users == 0:
                raise ClosedError("the store is closed")
            if self._env is damaged:
                self._remove()
                self._env, self._tables = self._open()  # the old one stays open: other threads may read from it
                self._keys.clear()

    def _reading(self) -> Txn:
        return self._env.begin()

    def _writing(self) -> Txn:
        return self._env.begin(write=True)

    def _place(self, txn: Txn, key: bytes) -> Place | None:
        row = txn.get(key, db=self._tables[0])
        if row is None:
            return None
        number, offset, stored, length, _ = PLACE.unpack(opened(key, row))
        return Place(self._key(txn, number), offset, stored, length)

    def _key(self, txn: Txn, number: int) -> str:
        """The key of a pack."""
        known = self._keys.get(number)
        if known is None:
            name = _NUMBER.pack(number)
            row = txn.get(name, db=self._tables[2])
            if row is None:
                raise DamagedRowError
            known = self._keys[number] = opened(name, row).decode()
        return known

    def _number(self, txn: Txn, key: str) -> int:
        """The number of a pack, which gets one now where it has none."""
        name = key.encode()
        row = txn.get(name, db=self._tables[1])
        if row is not None:
            return int(_NUMBER.unpack(opened(name, row))[0])
        number = txn.stat(self._tables[2])["entries"]
        packed = _NUMBER.pack(number)
        txn.put(packed, sealed(packed, name), db=self._tables[2])
        txn.put(name, sealed(name, packed), db=self._tables[1])
        return int(number)

    def _add(self, txn: Txn, commit: Commit) -> None:
        numbers = {key: self._number(txn, key) for key in [commit.key, *(part.key for part in commit.footer.parts if part.key)]}
        for entry in commit.footer.entries(commit.key):
            key = content_key(entry.kind, entry.digest, entry.start)
            place = entry.place
            row = PLACE.pack(numbers[place.key], place.offset, place.stored, place.length, entry.size)
            txn.put(key, sealed(key, row), db=self._tables[0])
        for nar in commit.footer.nars:
            self._put_nar(txn, nar)

    def _put_nar(self, txn: Txn, row: NarRow) -> None:
        txn.put(row.node, sealed(row.node, _NAR.pack(row.facts.size, row.facts.sha256)), db=self._tables[3])

    def _meta(self, txn: Txn, name: bytes) -> bytes:
        row = txn.get(name, db=self._tables[4])
        return b"" if row is None else opened(name, row)

    def _put_meta(self, txn: Txn, name: bytes, value: bytes) -> None:
        txn.put(name, sealed(name, value), db=self._tables[4])

    def _epoch(self, txn: Txn) -> int:
        return int.from_bytes(self._meta(txn, b"epoch"), "little")


def _boot() -> bytes:
    """Names this start of the machine, from which on its monotonic clock counts."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip().ljust(36)[:36]
    except OSError:
        return bytes(36)

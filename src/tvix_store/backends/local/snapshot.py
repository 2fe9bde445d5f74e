"""Snapshot: the index of a store that this process may not write, or shall not.

A reader of LMDB writes too: it registers itself in a lock file, so that no writer uses its pages again. The pages of a reader that
can't write there may change during a read. That may kill its process. So such a reader gets a copy of its own.

The copy is made as a store goes back after a power cut (see `checkpoint.py`). Nobody changes the pages that the checkpoint on the
disk reaches. So they are copied, and the copy counts if the checkpoint is still the same one afterwards. A replay of the packs
brings it up to date. Where there is no such checkpoint, since the store is of an older format or its index is damaged, a replay
of all packs makes the copy. Nothing of the store is locked or changed: whoever writes to it does not notice.

The files of the copy have no names any more when it is open: nothing of it outlives the process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tvix_store.backends.local import index_damage, settings, store_lock
from tvix_store.backends.local.checkpoint import Checkpoint
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.durability import Durability, NoDurability
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark, has_notes_of_index
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import Place, pack_numbers, pack_path
from tvix_store.backends.local.records import CONTENTS, Kind, NewRecord
from tvix_store.backends.local.replay import replay
from tvix_store.backends.local.seal import is_sealed
from tvix_store.errors import CorruptError, DeniedError, StoreError, UnavailableError

_TRIES = 5
"""To copy the index while the checkpoint stays. Under the heaviest load, a new one is made every second or less often."""
_LOOK_EVERY = 1.0
"""Seconds between two looks at the sizes of the packs."""
_REST = 10.0
"""How many times as long as the last replay took, the next one waits: what is staged is gone through each time."""
_log = logging.getLogger(__name__)


def why_read_only(directory: Path) -> str | None:
    """Why this process cannot write to the store in `directory`; None where it can, or where there is no store."""
    with disk_errors(directory):
        if not (directory / settings.FILE).exists():
            return None
        needed = [directory, directory / store_lock.FILE, directory / "packs", directory / "index"]
        for path in (*needed, *(directory / "index").glob("*.mdb*")):
            if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
                if os.statvfs(path).f_flag & os.ST_RDONLY:
                    return "its file system is read-only"
                return f"this user may not write {path}; write as its owner, or through a daemon of the owner"
    return None


class Snapshot:
    """A copy of the index of a store. It follows the packs, as others write them, until it is closed."""

    def __init__(self, store: Path) -> None:
        self._packs = store / "packs"
        self.durability = NoDurability(store)
        with disk_errors(store):
            self._seen = self._sizes()
            with private_directory() as private:
                self.damage = DamageMark(private)
                self.index = self._copied(store, private) or self._made_anew(store, private)
        self._ends = threading.Event()
        self._catching_up = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="tvix-store-snapshot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self.index.close()

    def catch_up(self) -> None:
        """Enter what is new in the packs. What a pack held that is gone may have been copied to others before.

        Raises:
            StoreError: that cannot be read now.
        """
        with self._catching_up, disk_errors(self._packs):
            sizes = self._sizes()
            if sizes != self._seen and not is_sealed(self._packs.parent):
                replay(self.index, self._packs, self.durability, is_live=True)
                self._seen = sizes

    def _copied(self, store: Path, private: Path) -> Index | None:
        """The index as of the checkpoint, brought up to date; None where there is none that could be trusted."""
        if (store / index_damage.FILE).exists() or has_notes_of_index(store / store_lock.FILE):
            return None
        try:
            checkpoint = copy_index(store, private, self.durability)
            if checkpoint is None:
                return None
            index = Index(private / checkpoint.file, self.durability, self.damage)
            try:
                if index.is_current:
                    if not checkpoint.is_sealed:
                        replay(index, self._packs, self.durability, is_live=True)
                    return index
            except BaseException:
                index.close()
                raise
            index.close()
        except CorruptError as error:
            _log.warning("%s", error)
        return None

    def _made_anew(self, store: Path, private: Path) -> Index:
        if self._seen:
            _log.warning("making an index of %s from its packs, for this process alone", store)
        index = Index(private / "anew.mdb", self.durability, self.damage)
        try:
            index.begin()
            replay(index, self._packs, self.durability, is_live=True)
        except BaseException:
            index.close()
            raise
        return index

    def _follow(self) -> None:
        rest = _LOOK_EVERY
        while not self._ends.wait(rest):
            begun = monotonic()
            try:
                self.catch_up()
            except StoreError as error:
                _log.debug("what is new in %s is not seen: %s", self._packs, error)
            rest = max(_LOOK_EVERY, _REST * (monotonic() - begun))

    def _sizes(self) -> dict[int, int]:
        return {number: os.stat(pack_path(self._packs, number)).st_size for number in pack_numbers(self._packs)}


class NoPack(PackWriter):
    """The writer of a store that is only read: it refuses contents and path infos.

    Other entries are dropped: facts of NARs, and damage that was found. The index, which is this process's own, has them already.
    """

    def __init__(self, directory: Path, refusal: str) -> None:
        super().__init__(directory, lambda _: 0, lambda: 0, 0, NoDurability(directory))
        self._refusal = refusal

    @property
    def is_full(self) -> bool:
        return False

    def append(self, records: list[NewRecord]) -> list[Place]:  # type: ignore[override]
        if any(record.kind in CONTENTS or record.kind is Kind.PATH_INFO for record in records):
            raise DeniedError(self._refusal)
        return []


def copy_index(store: Path, private: Path, durability: Durability) -> Checkpoint | None:
    """Copy the index into `private`, as of the checkpoint; None where it, or the checkpoint, is lost.

    Raises:
        CorruptError: the checkpoint is damaged.
        UnavailableError: a new one was made during each try.
    """
    for _ in range(_TRIES):
        checkpoint = Checkpoint.read(store)
        if checkpoint is None:
            return None
        is_whole = _copy(store / "index" / checkpoint.file, private / checkpoint.file, checkpoint.meta.file_size)
        if Checkpoint.read(store) == checkpoint:
            if not is_whole:
                return None
            checkpoint.restore(private / checkpoint.file, durability)
            return checkpoint
    raise UnavailableError(f"{store} is written faster than its index can be copied; try again")


def _copy(source: Path, target: Path, size: int) -> bool:
    """Copy the first `size` bytes of a file; whether it has so many."""
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        with disk_errors(target):
            writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                at = 0
                while at < size and (count := os.sendfile(writing, reading, at, size - at)):
                    at += count
            finally:
                os.close(writing)
    finally:
        os.close(reading)
    return at == size


@contextmanager
def private_directory() -> Iterator[Path]:
    try:
        directory = TemporaryDirectory(prefix="tvix-store-")
    except OSError as error:
        raise UnavailableError(f"a store that is only read needs a temporary directory for its index ($TMPDIR): {error}") from error
    with directory as name:
        yield Path(name)

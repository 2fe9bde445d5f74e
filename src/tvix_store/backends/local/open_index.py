"""Opening the index of a store: as it is, or, by one process alone, brought back to what the packs say.

After a power cut, or a failed sync, the index goes back to the last checkpoint, and the ends of the packs are replayed. Where it is
lost or damaged, it is made anew by a replay of all packs.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from tvix_store.backends.local import settings
from tvix_store.backends.local.checkpoint import FILE as CHECKPOINT
from tvix_store.backends.local.checkpoint import Checkpoint, this_boot
from tvix_store.backends.local.checkpointer import sync_named, write_checkpoint
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import lock_file
from tvix_store.backends.local.file_lock import PAUSE
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.ledger import PUBLISHED_AT
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.replay import replay
from tvix_store.backends.local.store_lock import StoreLock
from tvix_store.errors import CorruptError, UnavailableError

_TRIES = 50
"""To have a store alone: a command that is just ending is worth a short wait."""
_OLD_INDEX, _OLD_MARK = "data.mdb", "index-unsynced"
"""In stores of formats 1 to 3: the LMDB file, and a mark with the boot in which it was written, which goes when all is synced."""
_CHECKED_ROWS = 3
"""The first format in which rows have checks."""
_CHECKPOINTS = 4
"""The first format in which the index has a checkpoint. Its files are those of the newest one."""
_log = logging.getLogger(__name__)


def open_index(directory: Path, durability: Durability, damage: DamageMark) -> tuple[StoreLock, Index]:
    """Lock the store as one of its users, and open its index. Waits while another process repairs the index.

    Raises:
        UnavailableError: the index must be repaired, but other processes use the store.
    """
    lock = StoreLock(directory)
    try:
        lock.crash_notes.begin()
        index = _Opening(directory, durability, damage, lock).open()
    except BaseException:
        lock.close()
        raise
    return lock, index


class _Opening:
    """A store that is being opened, and the lock that it is held by."""

    def __init__(self, directory: Path, durability: Durability, damage: DamageMark, lock: StoreLock) -> None:
        self._directory = directory
        self._durability = durability
        self._damage = damage
        self._lock = lock

    def open(self) -> Index:
        lock, damage = self._lock, self._damage
        for _ in range(_TRIES):
            lock.share()
            has_crashed = lock.crash_notes.tell_of_index()
            if has_crashed:
                damage.set(f"a process died while it worked on the index in {self._directory}")
            if not damage.is_set():
                index = self._as_it_is()
                if index is not None:
                    return index
            if lock.take_alone():
                index = self._repaired()
                lock.share()
                return index
            lock.share()
            if damage.is_set() and not has_crashed:
                # Most of it is good. The others go on with it as well, and what is damaged in it counts as missing.
                index = self._as_it_is()
                if index is not None:
                    _log.warning("the index in %s is damaged; it is made anew when nobody else uses the store", self._directory)
                    return index
            lock.release()
            time.sleep(PAUSE)
        raise UnavailableError(
            f"the index in {self._directory} must be repaired, but other processes use the store; stop them and try again"
        )

    def _as_it_is(self) -> Index | None:
        """The index, unless it is lost, of an older format, cannot be opened, or a power cut or a failed sync may have torn it."""
        checkpoint = self._checkpoint()
        if checkpoint is None or self._durability.is_poisoned():
            return None
        if not checkpoint.is_of_this_boot and not checkpoint.is_sealed:
            return None
        return self._of(checkpoint)

    def _repaired(self) -> Index:
        """The index, repaired unless another process was faster. The store is held alone."""
        index = None
        version = settings.format_of(self._directory)
        if version != settings.FORMAT:
            _log.warning("upgrading %s to store format %d, which older versions do not open", self._directory, settings.FORMAT)
            if version < _CHECKPOINTS and not self._damage.is_set():
                index = self._with_checkpoint(version)
            settings.raise_format(self._directory, self._durability)
            (self._directory / _OLD_MARK).unlink(missing_ok=True)
        if index is None and not self._damage.is_set():
            index = self._as_it_is() or self._gone_back()
        if index is None:
            index = make_anew(self._directory, self._durability, self._damage)
        self._lock.crash_notes.clear()
        return index

    def _checkpoint(self) -> Checkpoint | None:
        try:
            return Checkpoint.read(self._directory) if settings.format_of(self._directory) == settings.FORMAT else None
        except CorruptError as error:
            _log.warning("%s", error)
            return None

    def _of(self, checkpoint: Checkpoint) -> Index | None:
        """The index that a checkpoint belongs to, unless it is lost or cannot be opened."""
        file = self._file_of(checkpoint)
        return None if file is None else self._opened(file)

    def _file_of(self, checkpoint: Checkpoint) -> Path | None:
        """The file that a checkpoint belongs to, where it and its lock file can be those of an LMDB environment."""
        file = self._directory / "index" / checkpoint.file
        if not file.is_file() or file.stat().st_size < checkpoint.meta.file_size or lock_file(file).is_dir():
            return None
        return file

    def _opened(self, file: Path) -> Index | None:
        with suppress(CorruptError):  # then the mark of damage is set
            index = Index(file, self._durability, self._damage)
            if index.is_current:
                return index
            index.close()
        return None

    def _gone_back(self) -> Index | None:
        """The index as of the last checkpoint, and what the packs hold behind that; None where there is no such index."""
        checkpoint = self._checkpoint()
        file = self._file_of(checkpoint) if checkpoint else None
        if checkpoint is None or file is None:
            return None
        checkpoint.restore(file, self._durability)
        index = self._opened(file)
        if index is None:
            return None
        try:
            pin, _ = index.pin()  # until the next checkpoint is there, a power cut leads back to this one
            try:
                if not checkpoint.is_sealed:
                    with index.writing() as txn:  # what was taken back since is condemned again: its grace begins anew
                        index.put_counter(txn, PUBLISHED_AT, 0)
                    replay(index, self._directory / "packs", self._durability)
                publish(index, self._directory, self._durability)
            finally:
                pin.abort()
        except CorruptError as error:
            _log.warning("%s", error)
            index.close()
            return None
        except BaseException:
            index.close()
            raise
        self._durability.heal()
        _log.warning("went back to the last checkpoint of %s, and replayed its packs from there", self._directory)
        return index

    def _with_checkpoint(self, version: int) -> Index | None:
        """The index of a store of a format without checkpoints; None where it is lost, cannot be opened, or may be torn."""
        old, mark = self._directory / "index" / _OLD_INDEX, self._directory / _OLD_MARK
        index = None
        if old.is_file() and old.stat().st_size > 0 and (not mark.exists() or mark.read_text(errors="replace") == this_boot()):
            try:
                if version < _CHECKED_ROWS:
                    index = replace_index(self._directory, self._durability, self._damage, lambda new: new.copy_unchecked(old))
                else:
                    index = self._opened(old)
                    if index is not None:
                        publish(index, self._directory, self._durability)
            except CorruptError as error:
                _log.warning("%s", error)
                if index is not None:
                    index.close()
                index = None
        return index


def make_anew(directory: Path, durability: Durability, damage: DamageMark) -> Index:
    """The index, made anew from the packs. The caller has the store to itself."""
    packs = directory / "packs"
    if any(packs.iterdir()):
        _log.warning("making the index of %s anew from its packs", directory)
    return replace_index(directory, durability, damage, lambda index: replay(index, packs, durability))


def replace_index(directory: Path, durability: Durability, damage: DamageMark, fill: Callable[[Index], None]) -> Index:
    """The index that `fill` makes, in the place of the old one. The caller has the store to itself."""
    file = new_index_file(directory)
    if (directory / CHECKPOINT).is_dir():
        _remove(directory / CHECKPOINT)
    index = Index(file, durability, damage)
    try:
        fill(index)
        index.begin()
        publish(index, directory, durability)
    except BaseException:
        index.close()
        for path in (file, lock_file(file)):
            path.unlink(missing_ok=True)
        raise
    damage.clear(durability)
    durability.heal()
    remove_other_indexes(file)
    return index


def new_index_file(directory: Path) -> Path:
    """A name for a new index; there is no such file."""
    parent = directory / "index"
    if not parent.is_dir():
        parent.unlink(missing_ok=True)
    numbers = [int(path.stem) for path in parent.glob("*.mdb") if path.stem.isdecimal()]
    file = parent / f"{max(numbers, default=0) + 1}.mdb"
    _remove(lock_file(file))
    return file


def remove_other_indexes(file: Path) -> None:
    """Remove what lies beside the file of an index."""
    for path in file.parent.iterdir():
        if path not in (file, lock_file(file)):
            _remove(path)


def publish(index: Index, directory: Path, durability: Durability) -> None:
    """Make a checkpoint of an index that nobody else has open: from now on, it is the one of the store."""
    with closing(PackReader(directory / "packs", durability)) as reader:
        pin, meta = index.pin()
        try:
            sync_named(index, pin, reader.sync, {})
            durability.sync_names(index.file.parent)
            write_checkpoint(directory, index, pin, meta, durability)
        finally:
            pin.abort()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

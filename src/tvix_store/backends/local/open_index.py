"""Opening the index of a store; made anew from the packs, by one process alone, where it is lost, damaged or may be torn."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tvix_store.backends.local import settings
from tvix_store.backends.local.disk import sync_file
from tvix_store.backends.local.environment import FILE as INDEX_FILE
from tvix_store.backends.local.environment import LOCK_FILE
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.packs import pack_numbers, pack_path
from tvix_store.backends.local.rebuild import rebuild
from tvix_store.backends.local.store_lock import PAUSE, StoreLock
from tvix_store.backends.local.unsynced import NoMark, UnsyncedMark
from tvix_store.errors import CorruptError, UnavailableError

_TRIES = 50
"""To have a store alone: a command that is just ending is worth a short wait."""
_log = logging.getLogger(__name__)


def open_index(directory: Path, mark: UnsyncedMark, damage: DamageMark) -> tuple[StoreLock, Index]:
    """Lock the store as one of its users, and open its index. Waits while another process makes the index anew.

    Raises:
        UnavailableError: the index must be made anew, but other processes use the store.
    """
    lock = StoreLock(directory)
    try:
        lock.crash_notes.begin()
        index = _opened(lock, directory, mark, damage)
    except BaseException:
        lock.close()
        raise
    return lock, index


def _opened(lock: StoreLock, directory: Path, mark: UnsyncedMark, damage: DamageMark) -> Index:
    for _ in range(_TRIES):
        lock.share()
        has_crashed = lock.crash_notes.tell_of_index()
        if has_crashed:
            damage.set(f"a process died while it worked on the index in {directory}")
        if not damage.is_set():
            index = _usable(directory, mark, damage)
            if index is not None:
                return index
        if lock.take_alone():
            return _made_usable(lock, directory, mark, damage)
        lock.share()
        if damage.is_set() and not has_crashed:
            # Most of it is good. The others go on with it as well, and what is damaged in it counts as missing.
            index = _usable(directory, mark, damage)
            if index is not None:
                _log.warning("the index in %s is damaged; it is made anew when nobody else uses the store", directory)
                return index
        lock.release()
        time.sleep(PAUSE)
    raise UnavailableError(
        f"the index in {directory} must be made anew, but other processes use the store; stop them and try again"
    )


def _made_usable(lock: StoreLock, directory: Path, mark: UnsyncedMark, damage: DamageMark) -> Index:
    """The index, made anew unless another process was faster. The store is held alone, and shared afterwards."""
    is_damaged = damage.is_set()
    settings.raise_format(directory)
    index = None if is_damaged else _usable(directory, mark, damage)
    if index is None:
        if is_damaged or not _upgraded(directory, mark, damage):
            rebuild_index(directory, damage)
        lock.crash_notes.clear()
        index = Index(directory / "index", mark, damage)
    lock.share()
    return index


def _usable(directory: Path, mark: UnsyncedMark, damage: DamageMark) -> Index | None:
    """The index, unless it is lost, of an older version, cannot be opened, or may be torn."""
    if settings.is_of_older_format(directory):
        return None
    index = _whole(directory, mark, damage)
    if index is None or index.is_current:
        return index
    if index.is_empty and not _has_packs(directory):
        index.begin()
        return index
    index.close()
    return None


def _whole(directory: Path, mark: UnsyncedMark, damage: DamageMark) -> Index | None:
    """The index, unless it is lost, cannot be opened, or may be torn."""
    if mark.index_may_be_torn() or (not _is_there(directory / "index") and _has_packs(directory)):
        return None
    try:
        return Index(directory / "index", mark, damage)
    except CorruptError:  # the mark of damage is set
        return None


def _is_there(index: Path) -> bool:
    """Whether the files of an index are; LMDB takes an empty one for a new index."""
    file, lock = index / INDEX_FILE, index / LOCK_FILE
    return file.is_file() and file.stat().st_size > 0 and (lock.is_file() or not lock.exists())


def _has_packs(directory: Path) -> bool:
    return any((directory / "packs").iterdir())


def _upgraded(directory: Path, mark: UnsyncedMark, damage: DamageMark) -> bool:
    """Give the rows of an index of an older version their checks, where it is one; whether that worked."""
    old = _whole(directory, mark, damage)
    if old is None:
        return False
    is_old = not (old.is_current or old.is_empty)
    old.close()
    if is_old:
        _log.warning("upgrading %s to store format %d, which older versions do not open", directory, settings.FORMAT)
        try:
            _replace_index(directory, damage, lambda new: new.copy_unchecked(directory / "index"))
        except CorruptError as error:
            _log.warning("%s", error)
            return False
    return is_old


def rebuild_index(directory: Path, damage: DamageMark) -> None:
    """Make the index anew from the packs. The caller has the store to itself."""
    _log.warning("making the index of %s anew from its packs", directory)
    _replace_index(directory, damage, lambda index: rebuild(index, directory / "packs"))


def _replace_index(directory: Path, damage: DamageMark, fill: Callable[[Index], None]) -> None:
    unfinished = directory / "index.new"
    _remove(unfinished)
    # The mark of the old index stays until the new one stands in its place; the new one needs none.
    index = Index(unfinished, NoMark(), damage)
    try:
        fill(index)
        index.begin()
        index.sync()
    except BaseException:
        _remove(unfinished)
        raise
    finally:
        index.close()
    # What the new index names is to survive a power cut, as it does itself.
    for number in pack_numbers(directory / "packs"):
        sync_file(pack_path(directory / "packs", number))
    _remove(directory / "index")
    unfinished.rename(directory / "index")
    UnsyncedMark(directory).clear()
    damage.clear()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

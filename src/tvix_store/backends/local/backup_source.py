"""The state of a store that a backup takes: a copy of its index, of which no later crash of the store takes anything back.

All that the state names is on the store's disk before it counts. So the store, wherever it goes back to, keeps these bytes of its
packs, and the next backup need not copy them once more.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tvix_store.backends.local import index_damage, store_lock
from tvix_store.backends.local.durability import Durability, NoDurability
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark, has_notes_of_index
from tvix_store.backends.local.snapshot import copy_index, private_directory, why_read_only
from tvix_store.errors import UnavailableError


def copy_state(store: Path, file: Path, durability: Durability, *, read_only: bool) -> None:
    """Copy the index of a store into a new `file`, which `durability` syncs.

    It is the index as of now. Of a store that this process cannot write, or shall not, it is the one of the last checkpoint.

    Raises:
        UnavailableError: the store is not well: packs are lost, or the index is damaged.
        StoreError: it cannot be read, or the file cannot be written.
    """
    if read_only or why_read_only(store) is not None:
        _copy_checkpoint(store, file, durability)
    else:
        _copy_now(store, file, durability)


def _copy_now(store: Path, file: Path, durability: Durability) -> None:
    engine = Engine.acquire(store, {}, 0)
    try:
        engine.check()
        engine.index.copy_to(file, durability)
        with closing(Index(file, durability, DamageMark(file.parent.parent))) as copy, copy.reading() as txn:
            unsynced = copy.unsynced_packs(txn)
        for number in unsynced:
            engine.reader.sync(number)
    finally:
        engine.release()


def _copy_checkpoint(store: Path, file: Path, durability: Durability) -> None:
    lost = sorted(path.name for path in store.glob("*.lost"))
    if lost or (store / index_damage.FILE).exists() or has_notes_of_index(store / store_lock.FILE):
        what = f"packs are missing or cut short ({lost[0]})" if lost else "the index is damaged"
        raise UnavailableError(f"in {store}, {what}; mend it before a backup is made")
    with private_directory() as private:
        nowhere = NoDurability(private)
        checkpoint = copy_index(store, private, nowhere)
        if checkpoint is not None:
            with closing(Index(private / checkpoint.file, nowhere, DamageMark(private))) as index:
                if index.is_current:
                    index.copy_to(file, durability)
                    return
    raise UnavailableError(f"{store} has no checkpoint that a backup could go by; let its owner open it once")

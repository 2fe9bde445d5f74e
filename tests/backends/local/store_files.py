"""The files of a local store, for tests that look into them or harm them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb

from tvix_store.backends.local.checkpoint import Checkpoint
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.open_index import make_anew

TABLES = (b"chunks", b"directories", b"chunk_lists", b"path_infos", b"records", b"nar", b"packs", b"counters")


def checkpoint_of(store: Path) -> Checkpoint:
    checkpoint = Checkpoint.read(store)
    assert checkpoint is not None
    return checkpoint


def index_file(store: Path) -> Path:
    """The LMDB file of the index."""
    return store / "index" / checkpoint_of(store).file


@contextmanager
def opened_table(store: Path, table: bytes) -> Iterator[tuple[lmdb.Transaction[bytes], Any]]:
    """A write transaction of the index of a store that nobody uses, and the handle of a table. A checkpoint is made of it."""
    with lmdb.open(str(index_file(store)), subdir=False, map_size=1 << 30, max_dbs=len(TABLES)) as env:
        handle = env.open_db(table)
        with env.begin(handle, write=True) as txn:
            yield txn, handle


def let_another_boot_follow(store: Path) -> None:
    """Let the store look as if the machine had been started anew since it was used."""
    if not checkpoint_of(store).is_sealed:
        replace(checkpoint_of(store), boot="0" * 36).write(store, Durability(store))


def make_index_anew(store: Path) -> None:
    """From the packs of a store that nobody uses."""
    make_anew(store, Durability(store), DamageMark(store)).close()


def opened_index(store: Path) -> Index:
    return Index(index_file(store), Durability(store), DamageMark(store))

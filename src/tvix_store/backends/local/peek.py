"""Peek: names in the index of a store, read without opening the store. A shell that completes a word waits for it.

Nothing is made, changed, upgraded or repaired. A store whose index cannot be read as it lies raises an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import lmdb

from tvix_store.backends.local.checkpoint import Checkpoint
from tvix_store.backends.local.rows import CHECK_SIZE
from tvix_store.errors import UnavailableError
from tvix_store.model import nixbase32
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE

_SEQUENCE = 8
"""Bytes before the value in a row: see `index.py`."""
_HASH = nixbase32.encoded_length(OUTPUT_HASH_SIZE)
_BITS = 5
"""A character of Nix's base 32 has so many."""


def peek_paths(directory: Path, begin: str, limit: int) -> list[str]:
    """Up to `limit` store paths, as `<hash>-<name>`, that begin so. To pass over 100,000 others takes 30 ms."""
    characters = begin[:_HASH]
    try:
        wanted = nixbase32.number(characters.encode()) if characters else 0
    except ValueError:  # no hash begins so
        return []
    shift = 8 * OUTPUT_HASH_SIZE - _BITS * len(characters)
    found: list[str] = []
    with _table(directory, b"path_infos") as cursor:
        # The index is sorted by the other end of the hash, so all keys are looked at.
        number = int.from_bytes
        for key in cursor.iternext(values=False):
            if number(key, "little") >> shift == wanted and (row := cursor.value()[_SEQUENCE:-CHECK_SIZE]):
                path = str(PathInfo.stored(row).store_path)
                if path.startswith(begin):
                    found.append(path)
                    if len(found) == limit:
                        break
    return found


def peek_records(directory: Path, begin: bytes, limit: int) -> list[bytes]:
    """The keys of up to `limit` records that begin so."""
    with _table(directory, b"records") as cursor:
        rows = cursor.iternext() if cursor.set_range(begin) else iter(())
        there = (key for key, row in rows if len(row) > _SEQUENCE + CHECK_SIZE or not key.startswith(begin))
        found = list(islice(there, limit))
    return [key for key in found if key.startswith(begin)]


@contextmanager
def _table(directory: Path, name: bytes) -> Iterator[lmdb.Cursor[bytes]]:
    file = _index_file(directory)
    with (
        closing(lmdb.open(str(file), subdir=False, readonly=True, create=False, max_dbs=1, readahead=False)) as environment,
        environment.begin() as transaction,
        transaction.cursor(environment.open_db(name, transaction, create=False)) as cursor,
    ):
        yield cursor


def _index_file(directory: Path) -> Path:
    checkpoint = Checkpoint.read(directory)
    if checkpoint is not None and (checkpoint.is_of_this_boot or checkpoint.is_sealed):
        file = directory / "index" / checkpoint.file
        if file.is_file() and file.with_name(f"{file.name}-lock").is_file():  # LMDB would make that
            return file
    raise UnavailableError(f"the index of {directory} cannot be read before the store is opened")

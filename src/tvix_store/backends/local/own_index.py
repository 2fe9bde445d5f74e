"""OwnIndex: the index of a store that this process may write, with the lock and the checkpoints that belong to it."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from tvix_store.backends.local.checkpointer import Checkpointer
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.index_scrub import IndexScrub
from tvix_store.backends.local.open_index import new_index_file, open_index, publish, remove_other_indexes
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.errors import StoreError

_COMPACTED_FROM, _COMPACTED_TO = 256, 16_384
"""Pages (4 KiB) of an index that is compacted when the store is closed: at least 1 MiB, and 64 MiB in use, which takes 100 ms."""


class OwnIndex:
    """An index that is open. `damage` tells all processes that it is damaged. With `scrubs`, a thread looks for damage."""

    def __init__(self, store: Path, reader: PackReader, durability: Durability, *, scrubs: bool) -> None:
        self._store = store
        self.durability = durability
        self.damage = DamageMark(store)
        self._lock, self.index = open_index(store, durability, self.damage)
        self.checkpointer = Checkpointer(store, self.index, reader.sync, durability)
        self._scrub = IndexScrub(self.index) if scrubs else None

    def close(self) -> None:
        """Make the last checkpoint, and close the index."""
        if self._scrub is not None:
            self._scrub.close()
        if self.checkpointer.close():
            with suppress(StoreError, OSError):  # on a full disk the index just stays large
                self._compact()
        self.index.close()
        self._lock.close()

    def _compact(self) -> None:
        """Give back the free pages of a small index, if nobody else uses the store.

        LMDB keeps them for its next commits: after the import of one tree they are more than half of the file.
        """
        pages, used = self.index.pages()
        if pages < _COMPACTED_FROM or used > _COMPACTED_TO or pages < 1.5 * used:
            return
        if self.damage.is_set() or self.durability.is_poisoned() or not self._lock.take_alone():
            return
        file = new_index_file(self._store)
        try:
            self.index.copy_to(file)
            with closing(Index(file, self.durability, self.damage)) as copy:
                publish(copy, self._store, self.durability)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self.index.close()
        remove_other_indexes(file)

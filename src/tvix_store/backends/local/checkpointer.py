"""Checkpointer: keeps the checkpoint of a store near what was committed, and lets the index commit only where that is safe.

The rule: a process commits only while it holds a pin that is not newer than the checkpoint on the disk. A pin is a read
transaction. LMDB does not write to pages that it reaches, nor to those that a later transaction reaches. So the checkpoint stays
whole, whatever other processes do, and however they die: each one that commits holds a pin of its own.

A checkpoint is made in this order: take a new pin, sync the packs that it names, sync the index, replace the checkpoint, give up
the old pin. It is made before the first commit, by a thread of its own under load, and once more when there is nothing to do.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from tvix_store.backends.local.checkpoint import Checkpoint, Meta, this_boot
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.durability import Durability, SyncFailedError
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import HIGHEST_PACK
from tvix_store.backends.local.seal import cut_to, is_sealed
from tvix_store.errors import CorruptError, StoreError

_ROWS = 30_000
"""Rows after which a checkpoint is due: to put them again into a large index that is not in memory takes a second."""
_MOST_ROWS = 60_000
"""Rows after which it is made without a rest. To put them again takes up to 80 µs of CPU each."""
_BYTES = 256 << 20
"""Stored bytes of content after which one is due: to read and hash them takes half a second."""
_SECONDS = 10.0
"""After which one is due, under load."""
_GROWN = 16 << 20
"""Bytes by which the index may grow before one is due: it does not use pages again that the last one reaches."""
_IDLE_AFTER = 1.0
"""Seconds without a commit after which one is due."""
_REST = 4.0
"""How many times as long as the last one took, the next one may wait: syncing takes the disk from those who write."""
_LET_GO_AFTER = 60.0
"""Seconds without a commit after which the pin is given up: while it is held, the pages behind it are not used again."""
_TICK = 0.25
_log = logging.getLogger(__name__)


class Checkpointer:
    """Makes checkpoints of an open store. Its methods may be called from any thread."""

    def __init__(self, store: Path, index: Index, sync_pack: Callable[[int], None], durability: Durability) -> None:
        self._store = store
        self._index = index
        self._sync_pack = sync_pack
        self._durability = durability
        self._gate = threading.Lock()
        """Held during a commit, and while the pin is given up."""
        self._making = threading.Lock()
        self._pin: Txn | None = None
        self._commits = self._covered = 0
        """By this process, and how many of them the checkpoint covers."""
        self._rows_at = self._bytes_at = self._size_at = 0
        """What the index had counted at the checkpoint, and the size of its file."""
        self._all_rows_at = self._seen = 0
        """How many rows all processes had put at the last checkpoint, and its transaction."""
        self._synced: dict[int, int] = {}
        """How much of each pack was brought to the disk for a checkpoint."""
        self._committed_at = self._made_at = self._rest_until = 0.0
        self._wake = threading.Event()
        self._stops = False
        self._thread: threading.Thread | None = None
        index.guard = self._committing

    def make(self) -> None:
        """Make a checkpoint of all that was committed, and pin it.

        Raises:
            SyncFailedError: the store is poisoned.
            StoreError: that cannot be done now; the last checkpoint stays.
        """
        with self._making, self._alone():
            begun, commits = monotonic(), self._commits
            rows, size = self._index.rows_put, self._index.bytes_put
            pin, meta = self._index.pin()
            try:
                if not self._is_made(meta):
                    sync_named(self._index, pin, self._sync_pack, self._synced)
                    self._durability.check()  # another process may have been told of a failure that we are not told of
                    write_checkpoint(self._store, self._index, pin, meta, self._durability)
            except BaseException:
                pin.abort()
                raise
            old, self._pin = self._pin, pin
            if old is not None:
                old.abort()
            self._covered = commits
            self._rows_at, self._bytes_at, self._size_at = rows, size, meta.file_size
            self._all_rows_at, self._seen = self._index.all_rows(pin), meta.transaction
            self._made_at = monotonic()
            self._rest_until = self._made_at + _REST * (self._made_at - begun)

    def close(self) -> bool:
        """Make the last checkpoint; whether all that was committed is in it."""
        if self._thread is not None:
            self._stops = True
            self._wake.set()
            self._thread.join()
        try:
            if self._commits > self._covered:
                self.make()
        except StoreError as error:  # a full disk, for example: the next to open the store, after a power cut, has more to do
            _log.warning("no checkpoint of %s was made: %s", self._store, error)
            return False
        finally:
            with self._gate:
                self._let_go()
        return True

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Around each commit."""
        with self._gate:
            self._durability.check()
            if self._pin is None:
                self.make()
                self._start()
            yield
            self._commits += 1
            self._committed_at = monotonic()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="tvix-store-checkpoints", daemon=True)
            self._thread.start()
        self._wake.set()

    def _serve(self) -> None:
        while not self._stops:
            self._wake.wait(None if self._pin is None else _TICK)
            self._wake.clear()
            now = monotonic()
            try:
                if self._is_due(now) and not self._stops:
                    self.make()
                elif self._commits == self._covered and now > self._committed_at + _LET_GO_AFTER:
                    with self._gate:
                        if self._commits == self._covered:
                            self._let_go()
            except SyncFailedError:
                return  # told already; nobody commits any more
            except StoreError as error:
                _log.warning("no checkpoint of %s was made: %s", self._store, error)
                self._rest_until = monotonic() + _SECONDS

    def _is_due(self, now: float) -> bool:
        if self._pin is None:
            return False
        rows = self._rows_behind()
        if now < self._rest_until and rows < _MOST_ROWS:
            return False
        is_late = now > self._made_at + _SECONDS
        if self._commits == self._covered:  # others may have committed, and need the pages that this process holds
            return is_late and self._index.last_transaction() != self._pin.id()
        return (
            is_late
            or now > self._committed_at + _IDLE_AFTER
            or rows > _ROWS
            or self._index.bytes_put - self._bytes_at > _BYTES
            or self._index.file_size() - self._size_at > _GROWN
        )

    def _rows_behind(self) -> int:
        """How many rows the checkpoint lacks. Those of other processes count: of each writer's alone, many would gather."""
        with self._index.reading() as txn:
            rows = self._index.all_rows(txn)
        with suppress(CorruptError):
            last = Checkpoint.read(self._store)
            if last is not None and last.meta.transaction > self._seen:  # by another process, since the last tick
                self._all_rows_at, self._seen = rows, last.meta.transaction
        return max(self._index.rows_put - self._rows_at, rows - self._all_rows_at)

    def _let_go(self) -> None:
        if self._pin is not None:
            self._pin.abort()
            self._pin = None

    def _is_made(self, meta: Meta) -> bool:
        """Whether the checkpoint on the disk is of this transaction."""
        try:
            last = Checkpoint.read(self._store)
        except CorruptError:
            return False
        is_ours = last is not None and last.is_of_this_boot and last.file == self._index.file.name
        return last is not None and is_ours and last.meta.transaction == meta.transaction

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making a checkpoint, so that none replaces a newer one."""
        with disk_errors(self._store):
            fd = os.open(self._index.file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def sync_named(index: Index, pin: Txn, sync_pack: Callable[[int], None], synced: dict[int, int]) -> None:
    """Bring all that a transaction reaches or names to the disk itself. `synced` says how much of each pack need not be."""
    for number, size in index.unsynced_packs(pin).items():
        if synced.get(number, 0) < size:
            with suppress(CorruptError):  # the pack is lost, which is not the disk's failure
                sync_pack(number)
                synced[number] = size
    index.sync()


def write_checkpoint(store: Path, index: Index, pin: Txn, meta: Meta, durability: Durability) -> None:
    """Let the store go back to a transaction from now on; all that it reaches or names is on the disk. This breaks a seal."""
    if is_sealed(store):
        cut_to(index.committed_packs(pin), store / "packs", durability)
    Checkpoint(this_boot(), index.file.name, index.counter(pin, HIGHEST_PACK), meta).write(store, durability)

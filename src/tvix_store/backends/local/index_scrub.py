"""IndexScrub: looks through the whole index for damage that no lookup would notice.

A flipped bit in a key, or in the bounds of a page, hides rows: a lookup finds nothing, and nothing tells it that there should be
something. So a process that has a store open for long looks at each row, beside its work, and again every day. Of the processes
that use a store, one at a time does so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from tvix_store.backends.local.file_lock import alone
from tvix_store.backends.local.index import Index
from tvix_store.errors import StoreError
from tvix_store.telemetry import meters

_BEGIN, _AGAIN = 10.0, 24 * 3600.0
"""Seconds from the opening of the store to the first look, and from the end of a look to the next."""
_ROWS = 200
"""Rows that are looked at in one go: half a millisecond."""
_PAUSE = 0.02
"""Seconds between two goes: a look takes 3 % of a core. For 10 million rows it takes a quarter of an hour."""


class IndexScrub:
    """Looks from now on, in a thread, until it is closed."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="tvix-store-scrub", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, within the time of one go."""
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        wait = _BEGIN
        while not self._stop.wait(wait):
            wait = _AGAIN
            # Damage was told, and what else there is, others will meet. LMDB's own locks are of another kind.
            with suppress(StoreError, OSError), alone(self._index.file) as is_alone:
                if is_alone:
                    look_through(self._index, lambda: self._stop.wait(_PAUSE))
                    if not self._stop.is_set():
                        meters.INDEX_SCRUBS.of().add_in_any_thread()


def look_through(index: Index, stops: Callable[[], bool] = lambda: False) -> None:
    """Look at all rows. `stops` is called between two goes; it may wait, and tells whether to end here.

    Raises:
        CorruptError: a page is damaged, and that was told. Of single rows it is told, and nothing raised.
    """
    for table in index.tables:
        before = index.state_of(table)
        count, last = index.look_at(table, None, _ROWS)
        while last is not None:
            if stops():
                return
            some, last = index.look_at(table, last, _ROWS)
            count += some
        # A page whose bounds are damaged may hide its last rows. The table counts its rows, where nobody has written meanwhile.
        if before == index.state_of(table) and before[1] != count:
            index.tell_of_hidden_rows(table, before[1] - count)

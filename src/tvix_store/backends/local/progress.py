"""Progress of work on the index that may take minutes, as lines in the log."""

from __future__ import annotations

import logging
from time import monotonic

_TOLD_EVERY = 5.0
"""Seconds. Whoever waits for a daemon to start, such as systemd, gives up on one that is silent for long."""
_log = logging.getLogger(__name__)


class Progress:
    """Logs how much of `total` is done, when that takes long."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = max(total, 1)
        self._done = 0
        self._tell_at = monotonic() + _TOLD_EVERY

    def add(self, size: int) -> None:
        self._done += size
        if monotonic() >= self._tell_at:
            self._tell_at = monotonic() + _TOLD_EVERY
            _log.warning("%s: %d %%", self._what, 100 * self._done // self._total)

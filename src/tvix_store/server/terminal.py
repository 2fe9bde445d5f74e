"""Terminal: tells the hangup of a terminal from a SIGHUP that asks to reload."""

from __future__ import annotations

import os
import signal


class Terminal:
    """The terminal from which this process was started. A process under `nohup`, or of a service manager, has none."""

    def __init__(self) -> None:
        self._was_there = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _is_there()

    def has_hung_up(self) -> bool:
        """Whether there was one, and is none any more."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True

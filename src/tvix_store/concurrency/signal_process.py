"""A signal to a process of asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress


def signal_process(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended.

    `Process.kill` and `terminate` first look whether it has ended, by a wait. Then asyncio, which waits for it too, finds none, and
    says so on standard error: "Unknown child process pid" (seen when Ctrl-C had ended both).
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)

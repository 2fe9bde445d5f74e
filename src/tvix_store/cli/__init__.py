"""The program `tvix-store`."""

from __future__ import annotations

import os
import signal
import sys
from gc import set_threshold  # `gc` is a module of this package, too
from types import FrameType

_COLLECT_AFTER = 20_000
"""New objects after which Python looks for garbage. With its own 700, a command that makes many (the entries of a tree), or imports
many modules, spends a twentieth of its time looking in vain."""


def main() -> None:
    """Run the program on `sys.argv`, and exit with a code of `cli.exit_codes`."""
    # Until a command is at work there is nothing to clean up, and a traceback from inside an import tells nobody anything.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    set_threshold(_COLLECT_AFTER)
    from tvix_store.cli.program import run_program

    sys.exit(run_program(sys.argv[1:]))


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)

"""The threads of `obstore`, which outlive its calls: what a process must heed.

A call's result comes from a thread that has a little to do yet, for which it needs the interpreter. If the interpreter ends just
then, the process aborts: half of the programs did that end with a request. So a process waits at its end until these threads rest.

A fork has none of these threads, and its calls would wait for ever.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tvix_store.errors import UnavailableError

_PAUSE = 0.002
"""Seconds in which a thread takes the interpreter, and ends its call."""
_AT_MOST = 2.0
_NAME = "(tokio-"
_THREADS = Path("/proc/self/task")


@cache
def begin_use() -> int:
    """To be called before the first request of a process; the id of this process."""
    atexit.register(_wait_for_rest)
    return os.getpid()


def check_process() -> None:
    """See that this is not a fork of a process that made requests.

    Raises:
        UnavailableError: it is.
    """
    if begin_use() != os.getpid():
        raise UnavailableError("this process was forked from one that uses an object store; open stores after a fork")


def _wait_for_rest() -> None:
    if begin_use() != os.getpid():
        return
    end = time.monotonic() + _AT_MOST
    while True:
        time.sleep(_PAUSE)
        if all(state == "S" for state in _states()) or time.monotonic() > end:
            return


def _states() -> Iterator[str]:
    """How the threads of `obstore` are: `S` for those that wait. Nothing where the system does not tell."""
    try:
        stats = [(thread / "stat").read_text() for thread in _THREADS.iterdir()]
    except OSError:  # one has ended meanwhile, or there is no /proc
        return
    for stat in stats:
        if _NAME in stat:
            yield stat.rpartition(") ")[2][:1]

"""What a service tells systemd, where a unit has `Type=notify`. Source: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress

_log = logging.getLogger(__name__)
_OF_SUPERVISOR = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SIGNS = 4
"""How often a worker says that it is alive within the time of the watchdog."""
LONGEST_OPENING = 3600.0
"""Seconds that a worker may take to open its store, before the watchdog takes it for one that hangs."""


def notify(state: bytes) -> None:
    """Tell systemd `state`, if it listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state, address.replace("@", "\0", 1) if address.startswith("@") else address)
        except OSError as error:
            _log.warning("could not notify systemd: %s", error)


def watchdog_time() -> float | None:
    """Seconds within which systemd wants a sign of life (`WatchdogSec=`) from this process; None where it wants none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if (
        not microseconds.isdecimal()
        or not int(microseconds)
        or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    ):
        return None
    return int(microseconds) / 1_000_000


def leave_to_supervisor(environment: MutableMapping[str, str]) -> None:
    """In the environment of a worker: forget how to speak to systemd."""
    for name in _OF_SUPERVISOR:
        environment.pop(name, None)


@contextmanager
def saying_it_opens(tell: Callable[[str], None], within: float | None) -> Iterator[None]:
    """While the body opens a store, tell `alive` as often as `saying_alive` does, but for `LONGEST_OPENING` at most.

    A thread tells it: an index that is made anew holds up the event loop for minutes.
    """
    if within is None:
        yield
        return
    opened, pause = threading.Event(), within / _SIGNS

    def say() -> None:
        until = time.monotonic() + LONGEST_OPENING
        while not opened.wait(pause) and time.monotonic() < until:
            with suppress(BlockingIOError):  # the supervisor is slow to read
                tell("alive")

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        opened.set()
        thread.join()


@asynccontextmanager
async def saying_alive(tell: Callable[[str], None], within: float | None) -> AsyncIterator[None]:
    """While the body runs, tell `alive` some times `within` seconds. A worker whose event loop stands still tells nothing."""

    async def say(pause: float) -> None:
        while True:
            with suppress(BlockingIOError):  # the supervisor is slow to read
                tell("alive")
            await asyncio.sleep(pause)

    saying = asyncio.create_task(say(within / _SIGNS)) if within is not None else None
    try:
        yield
    finally:
        if saying is not None:
            saying.cancel()

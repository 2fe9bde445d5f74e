"""Progress of what lasts, on standard error: a line that changes on a terminal, and elsewhere one more line every 10 seconds.

Both are made of the same facts by our own few lines. The bars of rich have no form for a log, mix MB with MiB, break into several
lines where a terminal is narrow, and take 0.1 s to import.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import TypeVar

from tvix_store.cli.invocation import Invocation
from tvix_store.cli.output import printable
from tvix_store.cli.progress_line import Progress, plain_line, terminal_line

T = TypeVar("T")
_DRAWN_EVERY, _TOLD_EVERY = 0.2, 10.0
"""Seconds: on a terminal, and elsewhere."""
_RATED = 50
"""How many of the last moments the rate is taken from: 10 seconds of them on a terminal."""
_CLEAR = "\r\x1b[K"
"""Moves to the begin of a terminal's line, and empties it."""


class Bar:
    """Takes progress; this one shows nothing.

    visible: Whether it is on a terminal, where other output would go into it.
    """

    visible = False

    def add(self, files: int, size: int) -> None:
        """So many more files, and bytes of them, are done."""

    def expect(self, size: int) -> None:
        """So many bytes are to be done in all."""


class _TellingBar(Bar):
    """Tells in a thread of its own: the event loop may be busy, or its thread."""

    def __init__(self, progress: Progress, *, visible: bool) -> None:
        self.visible = visible
        self._progress = progress
        self._began = time.monotonic()
        self._moments = deque([(self._began, 0)], _RATED if visible else 2)
        """Times, and how much was done then."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def add(self, files: int, size: int) -> None:
        self._progress.count += files
        self._progress.done += size

    def expect(self, size: int) -> None:
        self._progress.total = size

    def step(self, label: str, done: int, total: int) -> None:
        """A step of the work, how much of it is done, and of how much."""
        if label and label != self._progress.label:
            self._moments = deque([(time.monotonic(), 0)], self._moments.maxlen)
        if label:
            self._progress.label, self._progress.done, self._progress.total = label, done, total

    def end(self) -> None:
        """Tell nothing any more. A terminal's line is left empty."""
        self._over.set()
        self._thread.join()

    def _tell(self) -> None:
        with suppress(OSError, ValueError):  # nobody listens
            while not self._over.wait(_DRAWN_EVERY if self.visible else _TOLD_EVERY):
                self._rate()
                text = f"{_CLEAR}{terminal_line(self._progress, _columns())}" if self.visible else plain_line(self._progress) + "\n"
                sys.stderr.write(text)
                sys.stderr.flush()
            if self.visible:
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()

    def _rate(self) -> None:
        now, done = time.monotonic(), self._progress.done
        then, before = self._moments[0]
        self._progress.rate = max(done - before, 0) / max(now - then, 0.001)
        self._moments.append((now, done))


def _columns() -> int:
    """The columns of the terminal, or those that COLUMNS claims."""
    with suppress(ValueError, OSError):
        claimed = int(os.environ.get("COLUMNS") or 0)
        return claimed or os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


@contextmanager
def _telling(invocation: Invocation, progress: Progress) -> Iterator[_TellingBar | None]:
    if invocation.quiet:
        yield None
        return
    bar = _TellingBar(progress, visible=sys.stderr.isatty() and os.environ.get("TERM") != "dumb")
    try:
        yield bar
    finally:
        bar.end()


@contextmanager
def progress_bar(
    invocation: Invocation, label: str, size: int | None = None, *, counted: str = "file", things: int | None = None
) -> Iterator[Bar]:
    """Tell of work with its rate and the remaining time. `size` is the expected total (bytes), where it is known.

    `counted` names one of the things that `Bar.add` counts, and `things` says how many there are.
    """
    with _telling(invocation, Progress(printable(label), size, counted=counted, things=things)) as bar:
        yield bar or Bar()


@contextmanager
def step_bar(invocation: Invocation) -> Iterator[Callable[[str, int, int], None] | None]:
    """Tell of work of several steps: called in any thread with the step, how much of it is done, and of how much."""
    with _telling(invocation, Progress("", in_bytes=False)) as bar:
        yield bar.step if bar else None


async def behind_bar(
    invocation: Invocation,
    label: str,
    values: Callable[[Bar], AsyncGenerator[T, None]],
    size: int | None = None,
    *,
    counted: str = "file",
    things: int | None = None,
) -> AsyncGenerator[T, None]:
    """The items of `values`, which moves a bar. Where the bar is seen, all comes when it is gone: printing would go into it."""
    held: list[T] = []
    with progress_bar(invocation, label, size, counted=counted, things=things) as bar:
        async with aclosing(values(bar)) as given:
            async for each in given:
                if bar.visible:
                    held.append(each)
                else:
                    yield each
    for each in held:
        yield each

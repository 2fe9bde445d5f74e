"""Watch: a run in a thread can be stopped, and tells how far it is."""

from __future__ import annotations

import threading

from tvix_store.services.collection import Progress


class StoppedError(Exception):
    """Nobody waits for the run any more."""


class Watch:
    """Asked by the run between two pieces of work. `tell` is called in the thread of the run."""

    def __init__(self, tell: Progress | None = None) -> None:
        self._tell = tell
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the run, at the next piece of work."""
        self._stop.set()

    def tell(self, step: str, done: int, total: int) -> None:
        """Go on.

        Raises:
            StoppedError: nobody waits for the run any more.
        """
        if self._stop.is_set():
            raise StoppedError
        if self._tell is not None:
            self._tell(step, done, total)

    def rest(self, seconds: float) -> None:
        """Wait. Raises as `tell`."""
        if self._stop.wait(seconds):
            raise StoppedError

"""RequestQueue: requests that wait for the committer. Whoever asks is answered, also where the committer is gone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future

from tvix_store.backends.local.requests import Request
from tvix_store.errors import UnavailableError
from tvix_store.model.path_info import PathInfo


class RequestQueue:
    """Filled by any thread, emptied by one."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self.failure: Exception | None = None
        """Why nothing can be put any more, until the store is opened again."""

    def put(self, request: Request) -> Future[PathInfo | None]:
        """Add a request; what it comes to.

        Raises:
            UnavailableError: the store is closed, or must be opened again.
        """
        with self._closing:
            if self.failure is not None:
                raise UnavailableError(f"the store must be opened again: {self.failure}")
            if self._closed:
                raise UnavailableError("the store is closed")
            self._requests.put(request)
        return request.done

    def close(self) -> None:
        """Take no more requests."""
        with self._closing:
            self._closed = True
            self._requests.put(None)

    def fail(self, error: Exception, begun: Iterable[Request]) -> None:
        """Answer all requests with an error, and those that were begun: nobody may wait for a thread that is gone."""
        with self._closing:
            self.failure = error
        accepted = [request for request in begun if not request.done.done()]
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None and request.done.set_running_or_notify_cancel():
                accepted.append(request)
        for request in accepted:
            request.done.set_exception(UnavailableError(f"the store must be opened again: {error}"))

    def is_empty(self) -> bool:
        return self._requests.empty()

    def take(self, timeout: float | None, most: int) -> tuple[list[Request], bool]:
        """The requests that wait, up to the first `most` bytes, and whether to stop behind them. None is no timeout."""
        group: list[Request] = []
        size = 0
        try:
            request = self._requests.get(timeout=timeout)
            while request is not None:
                if request.done.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                    group.append(request)
                    size += request.size
                if size >= most:
                    return group, False
                request = self._requests.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

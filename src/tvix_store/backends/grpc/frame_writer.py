"""FrameWriter: frames on their way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tvix_store.backends.grpc.call_error import CallError
from tvix_store.protocol.status import Status

SENT_AT_ONCE = 1 << 20
"""Bytes of data that are handed to the transport before it is asked whether it takes more."""
_MOST_UNSENT = 4 << 20
"""Bytes that may wait in the transport. Answers to a server that sends PINGs and does not read are no reason to keep more."""


class FrameWriter:
    """Sends frames together when the event loop comes round. So calls that begin at once take one system call.

    abort: Ends the connection with an error.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, abort: Callable[[CallError], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.may_write = True
        """Whether the transport takes more."""
        self._loop = loop
        self._abort = abort
        self._is_closed = False
        self._waiting: list[bytes | memoryview] = []
        self._size = 0

    def write(self, *parts: bytes | memoryview) -> None:
        if self._is_closed:
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting += parts
        self._size += sum(map(len, parts))
        if self._size >= SENT_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Send what waits, as a last word, and end the connection."""
        self._is_closed = True
        if self.transport is not None:
            if self._waiting and not self.transport.is_closing():
                self.transport.writelines(self._waiting)
            self.transport.abort()

    def _flush(self) -> None:
        if self.transport is None or self._is_closed or not self._waiting:
            return
        self.transport.writelines(self._waiting)
        self._waiting, self._size = [], 0
        if self.transport.get_write_buffer_size() > _MOST_UNSENT:
            self._abort(CallError(Status.UNAVAILABLE, "the server does not read"))

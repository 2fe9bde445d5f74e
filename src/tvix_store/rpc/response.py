"""Response: how the answers to a call are sent, whatever the protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tvix_store.asgi import Send
from tvix_store.rpc.method import Answer, Call
from tvix_store.rpc.status import RpcError
from tvix_store.traffic import LARGE, Place

_SHORT = 4096
"""Bytes of answers that need no place."""
_BEGUN = 1 << 20
"""Bytes that a call keeps which has just begun to answer."""


class Response(ABC):
    """Sends the answers to one call. `compressed`: with gzip, as the caller does.

    Raises:
        DisconnectedError: (all methods) nobody is there to read it.
    """

    __slots__ = ("_call", "_compressed", "_send", "_sent", "_started")

    def __init__(self, call: Call, send: Send, *, compressed: bool) -> None:
        self._call = call
        self._send = send
        self._compressed = compressed
        self._started = False
        self._sent = 0

    @abstractmethod
    async def message(self, message: Answer, place: Place | None = None, *, last: bool = False) -> None:
        """Send an answer; behind the last one, `end` is all that may follow. `place` is for messages that the caller does not take
        soon.

        Raises:
            ExhaustedError: there is no room for it.
        """

    @abstractmethod
    async def end(self, *, body_ended: bool = False) -> None:
        """All went well. `body_ended`: the last message was said to be it."""

    @abstractmethod
    async def fail(self, error: RpcError) -> None:
        """The call ends with a status other than OK."""

    async def _keep(self, message: Answer, place: Place) -> None:
        """Hold a place for a message that is about to be sent."""
        size = len(message) if isinstance(message, bytes) else len(message[0]) + len(message[1])
        self._sent += size
        if self._sent > _SHORT:
            # Beside the message, what its maker keeps to go on with.
            size = max(size, LARGE if self._sent > LARGE else _BEGUN)
            await place.hold(size, kept=min(size, _BEGUN))
            place.waits()

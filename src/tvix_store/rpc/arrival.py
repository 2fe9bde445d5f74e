"""Arrival: a request that comes in, as far as protocols differ in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tvix_store.asgi import Receive


class Unframing(Protocol):
    """Takes a body's bytes as they come, and gives its messages.

    Raises:
        ExhaustedError: a message is larger than the limit of its method.
        RpcError: the bytes are no messages.
    """

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; the messages that they complete."""
        ...

    @property
    def under_way(self) -> int:
        """Bytes of the message that has begun and not ended, as announced; 0 where there is none."""
        ...

    def finish(self) -> Iterator[bytes]:
        """The body is at its end; the messages that this completes."""
        ...


class Framing(Protocol):
    """How messages stand in a body."""

    @property
    def is_gzip(self) -> bool:
        """Whether messages may be compressed."""
        ...

    def whole(self, body: bytes, limit: int) -> bytes | None:
        """The only message of a whole body, where a look is enough to find it, and it has at most `limit` bytes."""
        ...

    def begin(self, limit: int) -> Unframing:
        """What reads a body that comes in pieces. `limit` bounds each message in bytes, as sent and as decompressed.

        Raises:
            RpcError: (UNIMPLEMENTED) the messages are in an encoding that we do not read.
            ExhaustedError: a message is announced to be larger than the limit.
        """
        ...


@dataclass(slots=True)
class Arrival:
    """A request that comes in.

    receive: Gives the events of its body.
    framing: How messages stand in the body.
    timeout: The header field with the time that the caller gives. None gives all time.
    seconds: Reads that field.
    """

    receive: Receive
    framing: Framing
    timeout: bytes | None
    seconds: Callable[[bytes], float]

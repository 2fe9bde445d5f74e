"""The messages of a stream, each behind a byte of flags and its length: of gRPC, and of Connect, which has an end of its own."""

from __future__ import annotations

from tvix_store.backends.grpc.call_error import CallError
from tvix_store.protocol.connect import END
from tvix_store.protocol.status import Status

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of the largest message that is accepted."""
_PREFIX = 5
"""Bytes before each message."""


def enveloped(message: bytes) -> bytes:
    """A message as it is sent."""
    return b"\0%b%b" % (len(message).to_bytes(4), message)


class Envelopes:
    """Takes an answer's bytes as they come, and gives its messages. `has_end`: the last message has the flag of Connect's end."""

    def __init__(self, *, has_end: bool = False) -> None:
        self.end: bytes | None = None
        """The message with the flag of the end, once it is there."""
        self._has_end = has_end
        self._held: list[bytes] = []
        """The beginning of a message that is not complete."""
        self._held_size = 0
        self._wanted = _PREFIX
        """Bytes that are needed to go on."""

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun, and not ended."""
        return self._held_size > 0

    def feed(self, raw: bytes) -> list[bytes]:
        """Take the next bytes; the messages that they complete.

        Raises:
            CallError: they are no messages that we take.
        """
        self._held.append(raw)
        self._held_size += len(raw)
        if self._held_size < self._wanted:
            return []
        data = b"".join(self._held) if len(self._held) > 1 else raw
        at, end = 0, len(data)
        found: list[bytes] = []
        while end - at >= _PREFIX:
            size = int.from_bytes(data[at + 1 : at + _PREFIX])
            if data[at] and not (self._has_end and data[at] == END):
                raise CallError(Status.INTERNAL, "the server sent a compressed message, which it was not asked for")
            if size > MAX_MESSAGE:
                raise CallError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is over the limit of {MAX_MESSAGE}")
            stop = at + _PREFIX + size
            if stop > end:
                break
            if data[at]:
                self.end = data[at + _PREFIX : stop]
                if stop < end:
                    raise CallError(Status.INTERNAL, "the server sent more behind the end of its answer")
                self._held, self._held_size = [], 0
                return found
            found.append(data[at + _PREFIX : stop])
            at = stop
        self._held = [data[at:]] if at < end else []
        self._held_size = end - at
        self._wanted = _PREFIX if end - at < _PREFIX else _PREFIX + int.from_bytes(data[at + 1 : at + _PREFIX])
        return found

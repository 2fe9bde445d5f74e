"""CallError: how a call has ended, if not well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from tvix_store.backends.grpc.frames import Reset
from tvix_store.protocol.status import Status

_OF_HTTP = {
    b"400": Status.INTERNAL,
    b"401": Status.UNAUTHENTICATED,
    b"403": Status.PERMISSION_DENIED,
    b"404": Status.UNIMPLEMENTED,
    b"429": Status.UNAVAILABLE,
    b"502": Status.UNAVAILABLE,
    b"503": Status.UNAVAILABLE,
    b"504": Status.UNAVAILABLE,
}
"""Statuses for answers that are plain HTTP. Source: gRPC, http-grpc-status-mapping."""
_RESETS = {each.value: each for each in Reset}
_OF_RESET: dict[int, Status] = {
    Reset.REFUSED_STREAM: Status.UNAVAILABLE,
    Reset.CANCEL: Status.CANCELLED,
    Reset.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    Reset.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
"""Source: gRPC, PROTOCOL-HTTP2."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class CallError(Exception):
    """A call ended with a status other than OK: the server's, or one of ours for a call that broke off. `message` may be empty.

    It is one line: a server's text must not steer a terminal, or look like a second line of a log.
    """

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        self.message = _CONTROL.sub(" ", message)
        super().__init__(f"{status.name}: {self.message}")


def ending(fields: Mapping[bytes, bytes], head: Mapping[bytes, bytes]) -> CallError | None:
    """The error that the last header fields of an answer state; None for OK. `head` are the first ones."""
    http = head.get(b":status", b"200")
    fields = {**head, **fields}  # some send an answer that is a status alone in the first, and then an empty end
    text = fields.get(b"grpc-status")
    if text is None:
        if http == b"200":
            return CallError(Status.UNKNOWN, "the server answered without a status; does it speak gRPC?")
        return CallError(_OF_HTTP.get(http, Status.UNKNOWN), f"the server answered with the HTTP status {http.decode('latin-1')}")
    if text == b"0":
        return None
    try:
        status = Status(int(text))
    except ValueError:
        status = Status.UNKNOWN
    return CallError(status, unquote_to_bytes(fields.get(b"grpc-message", b"")).decode(errors="replace"))


def reset_by_server(why: int) -> CallError:
    """The error that a frame RST_STREAM stands for."""
    name = _RESETS[why].name if why in _RESETS else f"error {why}"
    return CallError(_OF_RESET.get(why, Status.INTERNAL), f"the server reset the call: {name}")

"""The Connect protocol: its prefix, content types, codes and JSON. Source: connectrpc.com/docs/protocol."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.protocol.status import Status

PREFIX = "/rpc/v1"
"""What stands before the path of each method: the version of the whole interface over plain HTTP."""
CALLS_KEY = "TvixStoreCalls"
"""The line of `nix-cache-info` that tells where a cache has its methods, relative to its URL. Stock Nix ignores it."""
UNARY = "application/proto"
"""The content type of one message, which is the whole body."""
STREAM = "application/connect+proto"
"""The content type of a stream of messages."""
GZIPPED = 1
"""The flag of a compressed message in a stream."""
END = 2
"""The flag of the last message of an answer, which is JSON: the error, if there is one, and the trailing fields."""

_CODES = {
    Status.CANCELLED: ("canceled", 499),
    Status.UNKNOWN: ("unknown", 500),
    Status.INVALID_ARGUMENT: ("invalid_argument", 400),
    Status.DEADLINE_EXCEEDED: ("deadline_exceeded", 504),
    Status.NOT_FOUND: ("not_found", 404),
    Status.ALREADY_EXISTS: ("already_exists", 409),
    Status.PERMISSION_DENIED: ("permission_denied", 403),
    Status.RESOURCE_EXHAUSTED: ("resource_exhausted", 429),
    Status.FAILED_PRECONDITION: ("failed_precondition", 400),
    Status.ABORTED: ("aborted", 409),
    Status.OUT_OF_RANGE: ("out_of_range", 400),
    Status.UNIMPLEMENTED: ("unimplemented", 501),
    Status.INTERNAL: ("internal", 500),
    Status.UNAVAILABLE: ("unavailable", 503),
    Status.DATA_LOSS: ("data_loss", 500),
    Status.UNAUTHENTICATED: ("unauthenticated", 401),
}
_STATUSES = {name: status for status, (name, _) in _CODES.items()}
OF_HTTP: Mapping[int, Status] = MappingProxyType(
    {
        400: Status.INTERNAL,
        401: Status.UNAUTHENTICATED,
        403: Status.PERMISSION_DENIED,
        404: Status.UNIMPLEMENTED,
        429: Status.UNAVAILABLE,
        502: Status.UNAVAILABLE,
        503: Status.UNAVAILABLE,
        504: Status.UNAVAILABLE,
    }
)
"""Statuses for answers without an error in JSON, such as those of proxies."""

Error: TypeAlias = tuple[Status, str]
"""A status and a line for people, which may be empty."""


def http_status(status: Status) -> int:
    """The HTTP status of an answer that is an error."""
    return _CODES[status][1]


def encode_error(status: Status, message: str, details: bytes = b"") -> bytes:
    """An error as JSON. `details` are those of gRPC: a google.rpc.Status."""
    return _json(_error(status, message, details))


def encode_end(error: tuple[Status, str, bytes] | None, trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The last message of a stream: its error (as in `encode_error`), None for a good end, and its trailing fields."""
    end: dict[str, object] = {}
    if error is not None:
        end["error"] = _error(*error)
    metadata: dict[str, list[str]] = {}
    for name, value in trailers:
        metadata.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    if metadata:
        end["metadata"] = metadata
    return _json(end)


def decode_error(text: bytes) -> Error:
    """Read what `encode_error` writes. An unknown code is UNKNOWN.

    Raises:
        InvalidError: it is no such JSON.
    """
    return _read_error(_object(text))


def decode_end(text: bytes) -> Error | None:
    """Read the error of what `encode_end` writes.

    Raises:
        InvalidError: it is no such JSON.
    """
    end = _object(text)
    return _read_error(end["error"]) if "error" in end else None


def _error(status: Status, message: str, details: bytes) -> dict[str, object]:
    error: dict[str, object] = {"code": _CODES[status][0]}
    if message:  # a name on Unix may hold any byte, but JSON is Unicode
        error["message"] = message.encode(errors="surrogateescape").decode(errors="replace")
    if listed := [_detail(wire.as_bytes(field, value)) for field, value in wire.fields(details) if field == 3]:
        error["details"] = listed
    return error


def _detail(packed: bytes) -> dict[str, str]:
    """A google.protobuf.Any (type_url=1, value=2) as an error has it."""
    parts = {field: wire.as_bytes(field, value) for field, value in wire.fields(packed)}
    return {
        "type": parts.get(1, b"").decode(errors="replace").rpartition("/")[2],
        "value": b64encode(parts.get(2, b"")).rstrip(b"=").decode(),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _object(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidError("it is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidError("it is not a JSON object")
    return value


def _read_error(error: object) -> Error:
    if not isinstance(error, dict) or not isinstance(code := error.get("code"), str):
        raise InvalidError("the error has no code")
    message = error.get("message", "")
    return _STATUSES.get(code, Status.UNKNOWN), message if isinstance(message, str) else ""

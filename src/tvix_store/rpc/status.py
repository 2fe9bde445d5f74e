"""The one place where the errors of the store become gRPC's statuses.

Source of the trailers' form: grpc.io, PROTOCOL-HTTP2.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import quote_from_bytes

from tvix_store import errors
from tvix_store.protocol.status import Status

__all__ = ["RpcError", "Status", "rpc_error", "status_fields"]

_log = logging.getLogger(__name__)
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_LONGEST_MESSAGE = 2048
"""Bytes of a status message that are sent: clients refuse long header blocks (grpcio: 8 KiB in all)."""


class RpcError(Exception):
    """A call that ends with a status other than OK: its code, a line for people, and the bytes of `grpc-status-details-bin`."""

    def __init__(self, status: Status, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details


def rpc_error(error: Exception, private_places: Sequence[str] = ()) -> RpcError:
    """The status that tells a caller of `error`, without `private_places`, as `errors.told`.

    Failures that are not the caller's are logged here. Of an unforeseen one, the caller learns only that it was internal.
    """
    if isinstance(error, RpcError):
        return error
    if not isinstance(error, errors.StoreError):
        _log.error("a call failed by an error of the program", exc_info=error)
        return RpcError(Status.INTERNAL, "internal error; the server's log has the details")
    if errors.is_failure(error):
        _log.error("%s", error)
    return RpcError(_status(error), errors.told(error, private_places))


def _status(error: errors.StoreError) -> Status:
    match error:
        case errors.InvalidError():
            return Status.INVALID_ARGUMENT
        case errors.NotFoundError():
            return Status.NOT_FOUND
        case errors.IncompleteError() | errors.ConflictError():
            return Status.FAILED_PRECONDITION
        case errors.ExhaustedError():
            return Status.RESOURCE_EXHAUSTED
        case errors.CorruptError():
            return Status.DATA_LOSS
        case errors.UnavailableError():
            return Status.UNAVAILABLE
        case errors.UnauthenticatedError():
            return Status.UNAUTHENTICATED
        case errors.DeniedError():
            return Status.PERMISSION_DENIED
        case errors.UnsupportedError():
            return Status.UNIMPLEMENTED
        case _:
            return Status.INTERNAL


def status_fields(error: RpcError) -> list[tuple[bytes, bytes]]:
    """The header fields that carry the status."""
    text = error.message.encode("utf-8", "surrogateescape")[:_LONGEST_MESSAGE]
    return [
        (b"grpc-status", b"%d" % error.status),
        (b"grpc-message", quote_from_bytes(text, safe=_PRINTABLE).encode()),
        *([(b"grpc-status-details-bin", b64encode(error.details).rstrip(b"="))] if error.details else ()),
    ]

"""The one place where the errors of the store become gRPC's statuses.

Source of the trailers' form: grpc.io, PROTOCOL-HTTP2.
"""

from __future__ import annotations

import logging
from base64 import b64encode
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


def rpc_error(error: Exception) -> RpcError:
    """The status that tells a caller of `error`.

    An unforeseen error is logged here, and the caller learns only that it was internal.
    """
    match error:
        case RpcError():
            return error
        case errors.InvalidError():
            return RpcError(Status.INVALID_ARGUMENT, str(error))
        case errors.NotFoundError():
            return RpcError(Status.NOT_FOUND, str(error))
        case errors.IncompleteError() | errors.ConflictError():
            return RpcError(Status.FAILED_PRECONDITION, str(error))
        case errors.ExhaustedError():
            return RpcError(Status.RESOURCE_EXHAUSTED, str(error))
        case errors.CorruptError():
            return RpcError(Status.DATA_LOSS, str(error))
        case errors.UnavailableError():
            return RpcError(Status.UNAVAILABLE, str(error))
        case errors.UnauthenticatedError():
            return RpcError(Status.UNAUTHENTICATED, str(error))
        case errors.DeniedError():
            return RpcError(Status.PERMISSION_DENIED, str(error))
        case errors.UnsupportedError():
            return RpcError(Status.UNIMPLEMENTED, str(error))
        case errors.RemoteError():
            return RpcError(Status.INTERNAL, str(error))
        case _:
            _log.error("a call failed by an error of the program", exc_info=error)
            return RpcError(Status.INTERNAL, "internal error; the server's log has the details")


def status_fields(error: RpcError) -> list[tuple[bytes, bytes]]:
    """The header fields that carry the status."""
    text = error.message.encode("utf-8", "surrogateescape")[:_LONGEST_MESSAGE]
    return [
        (b"grpc-status", b"%d" % error.status),
        (b"grpc-message", quote_from_bytes(text, safe=_PRINTABLE).encode()),
        *([(b"grpc-status-details-bin", b64encode(error.details).rstrip(b"="))] if error.details else ()),
    ]

"""From gRPC's statuses back to the errors of the store. The server's side of it is `rpc.status`."""

from __future__ import annotations

import re
from typing import TypeAlias

from tvix_store import errors
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.errors import NotFoundError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.protocol.status import Status

Subject: TypeAlias = tuple[str, object]
"""The subject of a call, as NotFoundError has it: kind and key."""

_OF_INPUT: dict[Status, type[StoreError]] = {
    Status.INVALID_ARGUMENT: errors.InvalidError,
    Status.OUT_OF_RANGE: errors.InvalidError,
    Status.FAILED_PRECONDITION: errors.IncompleteError,
    Status.ALREADY_EXISTS: errors.ConflictError,
}
_OF_SERVER: dict[Status, type[StoreError]] = {
    Status.RESOURCE_EXHAUSTED: errors.ExhaustedError,
    Status.DATA_LOSS: errors.CorruptError,
    Status.UNAVAILABLE: errors.UnavailableError,
    Status.DEADLINE_EXCEEDED: errors.UnavailableError,
    Status.ABORTED: errors.UnavailableError,
    Status.PERMISSION_DENIED: errors.DeniedError,
    Status.UNAUTHENTICATED: errors.UnauthenticatedError,
    Status.UNIMPLEMENTED: errors.UnsupportedError,
}
_NAMED = re.compile(r"\b(blob|directory) b3:([0-9a-f]{64})\b")
"""The form in which our servers name missing content. A call may reach more than the digest that it asks for."""


def store_error(error: CallError, server: str, path: str, subject: Subject) -> StoreError:
    """The error of the store that `error`, the end of the call `path` to `server` about `subject`, stands for.

    A status that fits no error of ours, such as INTERNAL, is a failure of that server.
    """
    code = error.status
    details = error.message or f"the server ended {path} with {code.name}, and no message"
    if code is Status.NOT_FOUND:
        named = _NAMED.search(details)
        return NotFoundError(named[1], Digest.parse(named[2])) if named else NotFoundError(*subject)
    if code in _OF_INPUT:
        return _OF_INPUT[code](details)
    if code in _OF_SERVER:
        return _OF_SERVER[code](f"{server}: {details}")
    return errors.RemoteError(f"{server}: {code.name}: {details}")

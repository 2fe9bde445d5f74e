"""The errors of the store: one small tree, facts inside, no transport in sight.

The edges translate: `rpc/status.py` to gRPC statuses, `cli/exit_codes.py` to exit codes.
A message is one line: the error, its place, and the remedy.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


class StoreError(Exception):
    """Base of all errors that the store raises on purpose."""


class InvalidError(StoreError):
    """The input breaks a rule; sending it again will not help."""


class NotFoundError(StoreError):
    """The store lacks the thing that was asked for: a `key` of some `kind`.

    `place` names the store. `message` says it in other words.
    """

    def __init__(self, kind: str, key: object, *, place: str = "", message: str = "") -> None:
        super().__init__(message or f"{kind} {key} is not in the store {place}".rstrip())
        self.kind = kind
        self.key = key


class NoStoreError(StoreError):
    """There is no store at an address, and none was to be made."""


class IncompleteError(StoreError):
    """The input refers to something that is not in the store; put that first."""


class ForgottenError(IncompleteError):
    """What was known of a NAR is not known any more: calculate it again, and look whether its content is still there."""


class ConflictError(StoreError):
    """The store holds something else under the same name."""


class CorruptError(StoreError):
    """Stored bytes do not match their digest, or the store's files are damaged."""


class UnavailableError(StoreError):
    """A backend does not answer now; the same call may work later."""


class ClosedError(UnavailableError):
    """The store is closed: it was used after its `close`, or after its `with` block. Open it again."""


class DeniedError(StoreError):
    """The caller may not do this."""


class UnauthenticatedError(DeniedError):
    """The caller has not shown who it is, or not credibly."""


class ExhaustedError(StoreError):
    """A limit was reached: a size, a count, or the disk."""


class DiskFullError(ExhaustedError):
    """The disk of the store, or a quota there, is full."""


class DiskDeniedError(DeniedError):
    """The system does not let the store use its own files."""


class RemoteError(StoreError):
    """Another server failed, in a way that only its own operators can tell more of; the message is the server's."""


class UnsupportedError(StoreError):
    """The other end does not offer this call."""


def of_disk(error: OSError, message: str, otherwise: type[StoreError]) -> StoreError:
    """The error, with this message, for what the system has refused to do with a file: `otherwise` where no other kind fits."""
    match error.errno:
        case errno.ENOENT:
            return NotFoundError("file", error.filename, message=message)
        case errno.EISDIR | errno.ENOTDIR | errno.ENAMETOOLONG | errno.ELOOP:
            return InvalidError(message)
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return ExhaustedError(message)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return DeniedError(message)
        case _:
            return otherwise(message)


def is_failure(error: Exception) -> bool:
    """Whether an operator should hear of `error`: the store, or something that it needs, failed, and not its caller."""
    ours = (CorruptError, UnavailableError, RemoteError, DiskFullError, DiskDeniedError)
    return isinstance(error, ours) or not isinstance(error, StoreError)


def told(error: Exception, private_places: Iterable[str]) -> str:
    """The message of `error` for a client from elsewhere: the paths of directories that are none of its business are left out."""
    message = str(error)
    for place in private_places:
        message = message.replace(place, "…")
    return message

"""The one place where the errors of the store become HTTP statuses.

A PUT never gets a 5xx: Nix before 2.33.2 tries again then, announces a body, and sends none (see docs/design/http.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tvix_store import errors
from tvix_store.asgi import CHALLENGES
from tvix_store.http.response import Headers, Response, text

_log = logging.getLogger(__name__)
_HEADERS: dict[int, Headers] = {
    401: CHALLENGES,
    503: ((b"retry-after", b"5"),),
}
"""Header fields beside a status. Source: RFC 9110."""


class HttpError(Exception):
    """A request that is answered with `status` and a line for people, and header fields beside."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def error_response(
    error: Exception,
    *,
    writing: bool,
    private_places: Sequence[str] = (),
    form: Callable[[int, str, Headers], Response] = text,
) -> Response:
    """The answer to a request that failed with `error`, without `private_places`, as `errors.told`.

    `form` makes the answer of a status, a line and header fields. Failures that are not the client's are logged. Of an unforeseen
    one, the client learns only "internal".
    """
    if isinstance(error, HttpError):
        return form(error.status, str(error), error.headers)
    status = _status(error)
    if not isinstance(error, errors.StoreError):
        _log.error("a request failed by an error of the program", exc_info=error)
        error = RuntimeError("internal error; the server's log has the details")
    elif status >= 500 or errors.is_failure(error):
        _log.error("%s", error)
    if status >= 500 and writing:
        status = 409
    return form(status, errors.told(error, private_places), _HEADERS.get(status, ()))


def _status(error: Exception) -> int:
    match error:
        case errors.InvalidError():
            return 400
        case errors.UnauthenticatedError():
            return 401
        case errors.DeniedError():
            return 403
        case errors.NotFoundError():
            return 404
        case errors.IncompleteError() | errors.ConflictError():
            return 409
        case errors.ExhaustedError():
            return 413
        case errors.UnsupportedError():
            return 415
        case errors.RemoteError():
            return 502
        case errors.UnavailableError():
            return 503
        case _:
            return 500

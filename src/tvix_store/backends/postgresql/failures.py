"""Failures of a database, as errors of the store: one clear line each, with the host and the database."""

from __future__ import annotations

import ssl

from tvix_store.backends.postgresql.driver import CONFUSED, MISUSED, state_of
from tvix_store.errors import (
    CorruptError,
    DeniedError,
    DiskFullError,
    ExhaustedError,
    InvalidError,
    NoStoreError,
    RemoteError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
)

CONFLICTS = frozenset(("40001", "40P01"))
"""SQLSTATEs: the work was undone, since it met other work. Done again, it may succeed."""
_KINDS: dict[str, tuple[type[StoreError], str]] = {
    "25006": (DeniedError, "the server can only be read; it may be a replica"),
    "28000": (UnauthenticatedError, "the server does not let this user in"),
    "28P01": (UnauthenticatedError, "the password is wrong, or missing"),
    "3D000": (NoStoreError, "there is no such database; make it with createdb"),
    "42501": (DeniedError, "the user lacks a right"),
    "53100": (DiskFullError, "the disk of the server is full"),
    "53300": (UnavailableError, "the server has too many connections; ?pool=NUMBER bounds those of each process"),
    "57014": (UnavailableError, "the server gave up a statement that took too long"),
    "22": (RemoteError, "the server refuses a value"),
    "53": (UnavailableError, "the server is short of something"),
    "54": (ExhaustedError, "a limit of the server is reached"),
    "XX001": (CorruptError, "the database is damaged"),
    "XX002": (CorruptError, "an index of the database is damaged; REINDEX makes it anew"),
}
"""By the SQLSTATE, or its first two characters: the error, and what it means."""


def is_conflict(error: Exception) -> bool:
    """Whether the work was undone since it met other work."""
    return state_of(error) in CONFLICTS


def is_lost(error: Exception) -> bool:
    """Whether the connection is lost, or could not be made. What was sent last may have been done, or not.

    A server that is restarted ends connections (57P01 to 57P03) and refuses new ones for a while. 08P01 is no loss: a pooler does
    not take the settings of our sessions.
    """
    state = state_of(error)
    if state:
        return (state.startswith("08") and state != "08P01") or state in {"57P01", "57P02", "57P03"}
    if isinstance(error, OSError):
        return not isinstance(error, TimeoutError | ssl.SSLError)
    return isinstance(error, CONFUSED) or "connection is closed" in str(error)


def translated(error: Exception, name: str) -> StoreError:
    """The error of the store that says the same of the database `name`."""
    state = state_of(error)
    said = _first_line(error)
    known = _KINDS.get(state) or _KINDS.get(state[:2])
    if known is not None:
        kind, meaning = known
        return kind(f"{name}: {meaning} ({said})")
    if isinstance(error, MISUSED):
        return misused(error, name)
    if is_conflict(error):
        return UnavailableError(f"{name}: too much other work is in the way of this; try again later")
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{name}: the server does not answer")
    if isinstance(error, ssl.SSLError):
        return UnavailableError(f"{name}: no connection by TLS: {said}")
    if is_lost(error):
        return UnavailableError(f"{name}: the server is not there: {said}")
    return RemoteError(f"{name}: {said}" + (f" (SQLSTATE {state})" if state else ""))


def misused(error: Exception, name: str) -> InvalidError:
    """The error for an address with parameters that the driver does not understand, or that name a file which is not there."""
    return InvalidError(f"{name}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__

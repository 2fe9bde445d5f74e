"""Sealed objects: small values that are replaced on a condition, with a nonce and a checksum."""

from __future__ import annotations

import os
from enum import Enum

from blake3 import blake3

from tvix_store.errors import CorruptError

_MAGIC = b"tvs1"
_NONCE = _SUM = 16
HEAD = len(_MAGIC) + 1 + _NONCE + _SUM
"""Bytes of an object whose value is empty."""


class State(Enum):
    """What an object says of its value."""

    THERE = b"t"
    VERIFIED = b"v"
    """It is there, and whoever wrote it has verified it: of a path info, that the facts of the NAR were calculated."""
    CONDEMNED = b"c"
    """It counts as absent. Who has condemned it removes it, or takes that back."""
    REMOVED = b"r"
    """Nothing is there. A delete has no conditions, and might hit what was just written; this can be replaced on one."""


PRESENT = frozenset((State.THERE, State.VERIFIED))
"""The states of values that count."""


def seal(key: str, value: bytes, state: State = State.THERE) -> bytes:
    """An object with a value. Each has another nonce: two writers of the same value can tell whose it is."""
    return b"".join((_MAGIC, state.value, os.urandom(_NONCE), _sum(key, state.value, value), value))


def unseal(key: str, data: bytes) -> tuple[State, bytes]:
    """The state and the value of an object.

    Raises:
        CorruptError: it is damaged, or that of another key.
    """
    state, value = data[len(_MAGIC) : len(_MAGIC) + 1], data[HEAD:]
    if not data.startswith(_MAGIC) or len(data) < HEAD or data[HEAD - _SUM : HEAD] != _sum(key, state, value):
        raise CorruptError(f"the object {key} is damaged")
    try:
        return State(state), value
    except ValueError:
        raise CorruptError(f"the object {key} has an unknown state, perhaps of a later version of tvix-store") from None


def _sum(key: str, state: bytes, value: bytes) -> bytes:
    return blake3(b"\0".join((key.encode(), state, value))).digest(_SUM)

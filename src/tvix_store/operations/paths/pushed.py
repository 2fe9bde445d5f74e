"""Pushed: the outcome of a push for one path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tvix_store.errors import StoreError


class PushStatus(Enum):
    """What became of a path."""

    COPIED = "copied"
    KNOWN = "known"
    """The target had it."""
    SKIPPED = "skipped"
    """An upstream has it: see `Pushed.reason`."""
    FAILED = "failed"
    """See `Pushed.error`."""
    LEFT_OUT = "left out"
    """It refers to a path that has failed, or was left out."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The outcome for a path.

    path: The absolute store path, or the text as it was given where that names no store path.
    reason: Why it was skipped. Empty otherwise.
    error: Why it is not at the target. None where it is.
    """

    path: str
    status: PushStatus
    reason: str = ""
    error: StoreError | None = None

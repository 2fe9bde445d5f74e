"""Account: what a copy has done so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


def _nothing(_: int) -> None:
    pass


@dataclass(slots=True)
class Account:
    """Bytes throughout.

    logical: The NARs of the paths that were copied, or were there already.
    sent: What crossed over to the target: chunks as they are stored, deltas, and directories.
    there: The content of files that the target had already.
    chunks: The number of chunks that were sent.
    deltas: The number of files that were sent as deltas.
    moved: Called with so many more bytes of files that are at the target now.
    expected: Called with the bytes that there are to move, where these are not known before.
    """

    logical: int = 0
    sent: int = 0
    there: int = 0
    chunks: int = 0
    deltas: int = 0
    moved: Callable[[int], None] = field(default=_nothing, repr=False)
    expected: Callable[[int], None] = field(default=_nothing, repr=False)

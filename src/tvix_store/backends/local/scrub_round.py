"""ScrubRound: how far a scrub has come, kept in the file `<store>/scrub`, and how fast it goes on.

A round begins at the first pack, and lasts a *period*. Packs that come meanwhile belong to it, until the period is over. What is
left of the content is spread over what is left of the time. Where nobody had the store open for some time, a round goes faster
afterwards. But it never goes faster than `_HURRY` times an even pace, even if it then lasts longer.

The file is the lock of the scrub as well, so it is written in place. It is not synced: who finds an older one reads some content
twice. Where it is damaged, a round begins.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from tvix_store.backends.local.disk import disk_errors, open_or_create
from tvix_store.backends.local.scrub_order import Position

FILE = "scrub"
_SIZE = 256
"""Bytes of the file, which is filled up with spaces. They are written with one call."""
_HURRY = 4
"""How many times as fast as an even pace a round may go that is late."""
_LEAST = 1.0
"""Seconds in which what is left may be read at most at once."""


@dataclass(frozen=True, slots=True)
class ScrubRound:
    """A round of a scrub. Times are seconds since 1970.

    begun: When it has begun.
    pack: The pack, and `offset`: the position in it, up to which content was looked at.
    last_pack: The highest number of a pack that belongs to the round.
    ended: When the last whole round has ended; 0 where there was none.
    """

    begun: float
    pack: int = 0
    offset: int = 0
    last_pack: int = 0
    ended: float = 0.0

    @property
    def position(self) -> Position:
        return Position(self.pack, self.offset)

    def at(self, position: Position) -> Self:
        """The round, when all content up to a position was looked at."""
        return replace(self, pack=position.pack, offset=position.offset)

    def seconds_left(self, period: float, now: float) -> float:
        """Until its period is over. A clock that was set back does not make the round longer."""
        return min(max(self.begun + period - now, 0.0), period)

    def going_on(self, period: float, now: float, highest_pack: int) -> Self:
        """The round, with the packs that have come, unless its period is over."""
        begun = min(self.begun, now)
        return replace(self, begun=begun, last_pack=highest_pack) if begun + period > now else self

    def followed(self, now: float) -> Self:
        """The round after this one, which has ended now."""
        return type(self)(now, ended=now)

    def write(self, store: Path) -> None:
        """Keep it in its file.

        Raises:
            StoreError: the disk does not let us.
        """
        with disk_errors(store):
            fd = open_or_create(store / FILE)
            try:
                os.pwrite(fd, json.dumps(asdict(self)).ljust(_SIZE - 1).encode() + b"\n", 0)
            finally:
                os.close(fd)

    @classmethod
    def read(cls, store: Path) -> Self | None:
        """That in the file; None where there is none, or the file is damaged.

        Raises:
            StoreError: the disk does not let us.
        """
        try:
            with disk_errors(store), (store / FILE).open("rb") as file:
                values = json.loads(file.read(_SIZE))
                read = cls(*(made(values[name]) for name, (made, _) in _FIELDS.items()))
        except (ValueError, TypeError, KeyError, OverflowError):
            return None
        return read if all(0 <= getattr(read, name) < bound for name, (_, bound) in _FIELDS.items()) else None


_FIELDS = {
    "begun": (float, 1e12),
    "pack": (int, 1 << 32),
    "offset": (int, 1 << 63),
    "last_pack": (int, 1 << 32),
    "ended": (float, 1e12),
}
"""What makes the value of each field, and what it is lower than."""


def pace(total: int, left: float, seconds_left: float, period: float) -> float:
    """The bytes a second at which to go on, where of the `total` of a round so many bytes and seconds are left."""
    return min(left / max(seconds_left, _LEAST), _HURRY * total / period)

"""Notes: what is known of the request that is being answered, for its lines in the log.

The outermost layer makes the notes of each request, and whoever works on the request may add to them, however deep inside. Work
outside of a request, such as that of a command, has no notes, and adding to none does nothing.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from itertools import count

_PREFIX = "%s-%x"
_numbers = count(1)
_process: tuple[int, str] = (0, "")
"""A process id, and random characters that stand for that process in the ids of requests."""


class Notes:
    """About one request.

    client: Name of the client, such as that of its token; "" where nobody looked at that.
    done: What was done, each with the first thing that it was done with, and their number.
    failed: Name of the status with which a call ended that did not end well.
    """

    # Attributes of the class, and not of each object: there is an object for each request.
    client: str = ""
    done: dict[str, tuple[str, int]] | None = None
    failed: str = ""
    _id: str = ""

    @property
    def id(self) -> str:
        """The id of the request: the client's own, or one that is made now."""
        self.need_id()
        return self._id

    def need_id(self) -> None:
        """See to it that there is an id."""
        if not self._id:
            self._id = _new_id()

    def add(self, what: str, thing: str) -> None:
        """Note what was done with a thing, such as `pushed` with a store path."""
        done = self.done = {} if self.done is None else self.done
        first, number = done.get(what, (thing, 0))
        done[what] = first, number + 1


current: ContextVar[Notes | None] = ContextVar("tvix_store_notes", default=None)
"""The notes of the request that this task, or thread, works on."""


def note(what: str, thing: str) -> None:
    """Note what was done with a thing, for the request that this task works on."""
    notes = current.get()
    if notes is not None:
        notes.add(what, thing)


def _new_id() -> str:
    global _process  # noqa: PLW0603 - after a fork, another process needs other characters
    if _process[0] != os.getpid():
        _process = os.getpid(), os.urandom(6).hex()
    return _PREFIX % (_process[1], next(_numbers))

"""How the daemon writes its log: as text or JSON, on stderr, and no cause too often."""

from __future__ import annotations

import json
import logging
import mmap
import re
import struct
import sys
import time
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TextIO

from tvix_store.telemetry import meters, notes

SAID = "tvix_store.daemon"
"""The logger of what the daemon says of itself at its start and end. Its lines have no level in text."""
_PAUSE = 10.0
"""Seconds in which a cause has one line."""
_MOST_CAUSES = 1000
"""Causes whose left-out lines are counted."""
_SLOT = struct.Struct("<Qd")
_SLOTS = 1024
"""Causes that are remembered at most. Two that share a slot have a line each."""
_VARIES = re.compile(r"[0-9a-z+/=]{20,}", re.IGNORECASE)
"""Digests and hashes in a message. Two messages that differ in nothing else have one cause."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
"""Characters that would steer a terminal, or begin another line. Text of clients may hold them."""


def set_up(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Write the log of this process, and of those that it forks, to `stream`, by default stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(SeldomErrors())
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`tvix-store: LEVEL: message`, with the id of the request that was answered meanwhile behind it."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name == SAID and record.levelno == logging.INFO:
            return record.getMessage()
        line = f"tvix-store: {record.levelname}: {_CONTROL.sub(' ', record.getMessage())}{_left_out(record)}"
        noted = notes.current.get()
        if noted is not None:
            line += f" [request {noted.id}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage() + _left_out(record),
        }
        noted = notes.current.get()
        if noted is not None:
            told["request_id"] = noted.id
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


class SeldomErrors(logging.Filter):
    """Lets one line in 10 s through for the same cause, which then tells how many were left out since the one before.

    That holds for errors, and for warnings while a request is answered: clients can cause them as often as they like. Processes
    that are forked later share the clock. How many lines were left out, each counts for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = mmap.mmap(-1, _SLOTS * _SLOT.size)
        """When a cause had its last line: its hash and the time, in the slot of the hash."""
        self._left_out: dict[int, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        meters.LOGGED.of(record.levelname.lower()).add_in_any_thread()
        if record.levelno < logging.ERROR and notes.current.get() is None:
            return True
        text = _VARIES.sub("#", f"{record.getMessage()}{_error(record)}")[:500]
        cause = int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
        now = time.monotonic()
        place = cause % _SLOTS * _SLOT.size
        found, last = _SLOT.unpack_from(self._last, place)
        if found == cause and now - last < _PAUSE:
            self._left_out[cause] = self._left_out.get(cause, 0) + 1
            while len(self._left_out) > _MOST_CAUSES:
                del self._left_out[next(iter(self._left_out))]
            return False
        _SLOT.pack_into(self._last, place, cause, now)
        record.left_out = self._left_out.pop(cause, 0)
        return True


def _left_out(record: logging.LogRecord) -> str:
    count = getattr(record, "left_out", 0)
    return f" (and {count} more times)" if count else ""


def _error(record: logging.LogRecord) -> str:
    return f" {record.exc_info[1]!r}" if record.exc_info else ""

"""How the daemon writes its log: as text or JSON, on stderr, and no cause too often."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import TextIO

from tvix_store.telemetry import meters, notes

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
SAID = "tvix_store.daemon"
"""The logger of what the daemon says of itself at its start and end. Its lines have no level in text."""
_PAUSE = 10.0
"""Seconds in which a cause has one line."""
_MOST_CAUSES = 1000
"""Causes that are remembered."""
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

    That holds for errors, and for warnings while a request is answered: clients can cause them as often as they like.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, tuple[float, int]] = {}
        """By cause: when its last line was, and how many were left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        meters.LOGGED.of(record.levelname.lower()).add_in_any_thread()
        if record.levelno < logging.ERROR and notes.current.get() is None:
            return True
        cause = _VARIES.sub("#", f"{record.name} {record.getMessage()}{_error(record)}")[:500]
        now = time.monotonic()
        last, left_out = self._lines.get(cause, (-_PAUSE, 0))
        if now - last < _PAUSE:
            self._lines[cause] = last, left_out + 1
            return False
        self._lines.pop(cause, None)
        self._lines[cause] = now, 0
        while len(self._lines) > _MOST_CAUSES:
            del self._lines[next(iter(self._lines))]
        record.left_out = left_out
        return True


def _left_out(record: logging.LogRecord) -> str:
    count = getattr(record, "left_out", 0)
    return f" (and {count} more times)" if count else ""


def _error(record: logging.LogRecord) -> str:
    return f" {record.exc_info[1]!r}" if record.exc_info else ""

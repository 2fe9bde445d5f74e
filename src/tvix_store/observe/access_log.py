"""The access log: a line for each request, on stderr, like all lines of the log."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TextIO
from urllib.parse import quote

from tvix_store.asgi import Event
from tvix_store.observe.requests import Exchange

_LONGEST = 1000
"""Characters of a path in a line."""
_SHOWN = "/!$'()*+,:;=@~%"
"""What stands in a path as it is; quotes, spaces and control characters do not."""


class AccessLog:
    """Writes a line for each request. Neither a query nor header fields are in it: they may hold secrets."""

    def __init__(self, stream: TextIO, form: str = "text") -> None:
        self._stream = stream
        self._line = _json_line if form == "json" else _text_line

    def __call__(self, scope: Event, exchange: Exchange) -> None:
        # One write a line: lines of several workers do not mix.
        try:
            self._stream.write(self._line(_facts(scope, exchange)) + "\n")
            self._stream.flush()
        except OSError:  # a full disk, or nobody who reads: requests are answered nevertheless
            logging.getLogger(__name__).debug("a line of the access log could not be written")


def _facts(scope: Event, exchange: Exchange) -> dict[str, object]:
    client = scope.get("client")
    facts: dict[str, object] = {
        "client": client[0] if client else "unix",
        "token": exchange.client,
        "protocol": exchange.route.protocol,
        "method": exchange.route.method,
        "path": quote(scope["path"][:_LONGEST], safe=_SHOWN),
        "status": exchange.outcome,
        "bytes_in": exchange.came,
        "bytes_out": exchange.sent,
        "seconds": round(exchange.seconds, 6),
        "request_id": exchange.id,
    }
    for what, (first, number) in (exchange.done or {}).items():
        facts[what] = first if number == 1 else f"{first} and {number - 1} more"
    return facts


def _text_line(facts: dict[str, object]) -> str:
    words = (f"{name}={_word(value)}" for name, value in facts.items() if value != "")
    return "tvix-store: ACCESS: " + " ".join(words)


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(character in text for character in ' "=\\') else text


def _json_line(facts: dict[str, object]) -> str:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": "INFO", "logger": "tvix_store.access", **facts})

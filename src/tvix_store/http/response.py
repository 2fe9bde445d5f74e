"""What is answered: a status, header fields, and a body at once or in pieces.

To an answer without a body, to HEAD or with status 304, the engine (h2corn 2.0) adds `content-length: 0`, and cannot be told not
to. So its length must be among the header fields, unless it takes too long to know: that of a NAR which would have to be
compressed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from tvix_store.asgi import DisconnectedError, Send

_PIECE = 256 << 10
"""Most bytes that the engine is given at a time: it takes 32 pieces ahead of a client. With pieces of 1 MiB, 60 clients that read
nothing made two workers hold 2.5 GB, with these 400 MB; and those that read are served as fast."""

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Response:
    """An answer. Of a body that is a generator, `headers` tell the length where it is known."""

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes, None] = b""
    _first: bytes = b""

    async def begin(self) -> None:
        """Make the beginning of the body, while it can still be told that it fails.

        Raises: what the body raises.
        """
        if not isinstance(self.body, bytes):
            self._first = await anext(self.body, b"")

    def beginning(self) -> bytes:
        """What `begin` has made. It is not kept: a slow client would make us keep two pieces."""
        first, self._first = self._first, b""
        return first


def text(status: int, line: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """A line for people."""
    body = line.encode("utf-8", "backslashreplace") + b"\n"
    return Response(status, ((b"content-type", b"text/plain; charset=utf-8"), length(len(body)), *headers), body)


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % size


async def send_response(response: Response, send: Send, *, head: bool, more: Headers = ()) -> None:
    """Send it, with `more` header fields; `head` leaves the body out.

    Raises:
        DisconnectedError: nobody is there to read it.
    """
    body = response.body
    start = {"type": "http.response.start", "status": response.status, "headers": response.headers + more}
    try:
        if isinstance(body, bytes):
            await send(start)
            await send({"type": "http.response.body", "body": b"" if head else body})
            return
        async with aclosing(body):
            await send(start)
            if not head:
                await _send_piece(response.beginning(), send)
                async for piece in body:
                    await _send_piece(piece, send)
        await send({"type": "http.response.body"})
    except OSError:
        raise DisconnectedError from None


async def _send_piece(piece: bytes, send: Send) -> None:
    for at in range(0, len(piece), _PIECE):
        part = piece if len(piece) <= _PIECE else piece[at : at + _PIECE]
        await send({"type": "http.response.body", "body": part, "more_body": True})

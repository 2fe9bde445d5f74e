"""Response: a status, header fields, and a body at once or in pieces.

To an answer without a body, to HEAD or with status 304, the engine (h2corn 2.0) adds `content-length: 0`. It has no option to
leave that out. So the true length must be among the header fields. The exception is a length that takes too long to know: that
of a NAR that would have to be compressed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from tvix_store.asgi import DisconnectedError, Send
from tvix_store.traffic import LARGE, SMALL, Place

_PIECE = 256 << 10
"""Most bytes that the engine is given at a time."""
_SMALL_PIECE = 32 << 10
"""The same where there are many clients. Over HTTP/1.1 the engine takes 35 pieces ahead of a client: with 256 KiB each, 200 clients
that read nothing made a worker hold 1.7 GB. To cut pieces costs 0.2 s of CPU a GiB."""
_PROGRESS = 256 << 10
"""Bytes after which a client counts as active. Where many clients have transfers, others then run."""

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Response:
    """An answer. Of a body that is a generator, `headers` tell the length where it is known.

    waits: Whether the body may take long to begin. Its first piece takes no memory that counts.
    for_pages: Whether web pages of other sites may read it.
    """

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes, None] = b""
    waits: bool = False
    for_pages: bool = True
    _first: bytes = b""

    @property
    def is_small(self) -> bool:
        """Whether the answer is whole, and so small that it needs no place. Most answers are."""
        return type(self.body) is bytes and len(self.body) <= SMALL

    async def prepare(self, place: Place) -> None:
        """Begin the body, and hold a place for it: while it waits, others need the room.

        Raises: as `begin` and `hold`. Then the body is closed.
        """
        if not self.waits:
            await self.hold(place)
            await self.begin()
            return
        await self.begin()
        try:
            await self.hold(place)
        except BaseException:
            if not isinstance(self.body, bytes):
                await self.body.aclose()
            raise

    async def begin(self) -> None:
        """Make the beginning of the body, while it can still be told that it fails.

        Raises: what the body raises.
        """
        if not isinstance(self.body, bytes):
            self._first = await anext(self.body, b"")

    async def hold(self, place: Place) -> None:
        """Hold a place for the bytes that wait while the client does not read.

        Raises:
            ExhaustedError: there is no room for it.
        """
        if isinstance(self.body, bytes):
            if len(self.body) > SMALL:
                await place.hold(len(self.body), kept=len(self.body))
            return
        size = next((int(value) for name, value in self.headers if name == b"content-length"), LARGE)
        if size > SMALL:
            await place.hold(min(size, LARGE))

    def beginning(self) -> bytes:
        """The piece that `begin` has made. It is not kept: a slow client would make us keep two pieces."""
        first, self._first = self._first, b""
        return first


def text(status: int, line: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """A line for people."""
    body = line.encode("utf-8", "backslashreplace") + b"\n"
    return Response(status, ((b"content-type", b"text/plain; charset=utf-8"), length(len(body)), *headers), body)


def see_slash(name: bytes) -> Response:
    """Leads from a directory's URL without a slash, whose last part is `name`, to the one with it."""
    return text(302, "a directory ends with a slash", ((b"location", b"./" + name + b"/"),))


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % size


async def send_whole(response: Response, send: Send, *, head: bool, more: Headers = ()) -> None:
    """Send an answer that is whole, with `more` header fields; `head` leaves the body out.

    Raises:
        DisconnectedError: nobody is there to read it.
    """
    try:
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers + more})
        await send({"type": "http.response.body", "body": b"" if head else response.body})
    except OSError:
        raise DisconnectedError from None


async def send_response(response: Response, send: Send, place: Place, *, head: bool, more: Headers = ()) -> None:
    """Send it, with `more` header fields; `head` leaves the body out. `place` is for bytes that the client does not take soon.

    Raises:
        DisconnectedError: nobody is there to read it.
    """
    body = response.body
    if isinstance(body, bytes):
        await send_whole(response, send, head=head, more=more)
        return
    try:
        async with aclosing(body):
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers + more})
            if not head:
                await _send_piece(response.beginning(), send, place)
                async for piece in body:
                    await _send_piece(piece, send, place)
        await send({"type": "http.response.body"})
    except OSError:
        raise DisconnectedError from None


async def _send_piece(piece: bytes, send: Send, place: Place) -> None:
    most = _SMALL_PIECE if place.is_crowded else _PIECE
    for at in range(0, len(piece), most):
        if at % _PROGRESS == 0:
            place.waits()
            if most < _PIECE:
                await asyncio.sleep(0)
        part = piece if len(piece) <= most else piece[at : at + most]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    place.works()

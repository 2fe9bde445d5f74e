"""Request: path, header fields and body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import cached_property
from urllib.parse import parse_qs, unquote_to_bytes

from tvix_store.asgi import DisconnectedError, Event, Receive, drained, grant_of, is_http1
from tvix_store.compression import NARROW_WINDOW, decompressor
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.http.own_url import OwnUrl
from tvix_store.http.status import HttpError
from tvix_store.traffic import SMALL, Budget, Client, Place

_WORK = 4 << 20
"""Bytes that are kept for work on a long body: a gathered MiB, and pieces that are being hashed, cut and written."""
_SHORT = 1 << 20
"""Bytes of a refused body that may follow while the connection is kept."""
_REST = 64 << 20
"""Most bytes of a refused body that are taken behind the answer, over HTTP/1.1. Then the connection is closed."""
_SEEN = 1.0
"""Seconds in which the engine sees that a connection is at its end."""
_REST_TIME = 5.0
"""Seconds in which they are taken: a client that has read the answer has long stopped sending."""
_REST_HTTP2 = 1 << 30
"""Most bytes of a refused body that are taken before the answer, over HTTP/2."""
_REST_TIME_HTTP2 = 60.0
"""Seconds in which they are taken."""
_PROGRESS = 256
"""Bytes of a body after which the client has not been silent."""
_LONGEST_PATH = 4096
_MOST_FIELDS = 20
_ENCODINGS = {
    "identity": "none",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
    "br": "br",
    "xz": "xz",
    "bzip2": "bzip2",
}
"""Content-Encodings, and Nix's names for them; newer versions of Nix send narinfos, listings and logs so."""


class Request:
    """A request, whose body may be read once."""

    body_ended = False
    _came = 0
    _is_silent = False
    _segments: list[bytes] | None = None

    def __init__(self, scope: Event, receive: Receive, body_timeout: float, incoming: Budget) -> None:
        self.method: str = scope["method"]
        self.grant = grant_of(scope)
        self.headers = _fields(scope["headers"])
        """Header fields by lower-case name; of one that is there several times, all values behind each other, with commas."""
        self._scope = scope
        self._receive = receive
        self._body_timeout = body_timeout
        self._patience = body_timeout
        """Seconds for which the client may still be silent, since its last `_PROGRESS` bytes came, in `_since_progress`."""
        self._since_progress = 0
        self._incoming = incoming

    @property
    def client(self) -> Client:
        return self._scope.get("client")

    @cached_property
    def arriving(self) -> Place:
        """The place for kept bytes of the body. Its first `SMALL` bytes need none."""
        return self._incoming.place(self.client)

    @property
    def segments(self) -> list[bytes]:
        """The parts of the path between its slashes, each decoded.

        Raises:
            HttpError: the path is too long, or holds a NUL, an encoded slash, or `.` or `..` between slashes.
        """
        # Not a cached property: that takes a lock in Python 3.11, and a twentieth of the time of a narinfo.
        if self._segments is None:
            self._segments = _segments(self._scope["raw_path"])
        return self._segments

    @property
    def raw_path(self) -> bytes:
        """The path as the client wrote it, behind the name of the cache."""
        path: bytes = self._scope["raw_path"]
        return path

    @property
    def own_url(self) -> OwnUrl:
        """The URL of the cache that the request is for, as its client knows it."""
        return OwnUrl.of(self._scope, self.headers.get(b"host", b""))

    @property
    def has_query(self) -> bool:
        return bool(self._scope["query_string"])

    @property
    def rest(self) -> bytes:
        """The path behind its first part, decoded, where the query is a part of a name.

        Nix does not encode the `?` that the name of a derivation may have.
        """
        rest = b"/".join(self.segments[1:])
        return rest + b"?" + unquote_to_bytes(self._scope["query_string"]) if self.has_query else rest

    @cached_property
    def query(self) -> dict[str, str]:
        """The last value of each name in the query.

        Raises:
            HttpError: there are more names than any URL of a cache has.
        """
        try:
            pairs = parse_qs(self._scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise HttpError(400, f"the query has more than {_MOST_FIELDS} fields") from None
        return {name: values[-1] for name, values in pairs.items()}

    async def body(self, at_least: int = 1) -> AsyncIterator[bytes]:
        """The body in pieces of `at_least` bytes or more, but for the last, which may be shorter.

        The engine hands over 8 KiB at a time, 131,072 pieces a GiB: the work for each of these counts.

        Raises:
            HttpError: too little came for too long (408).
            DisconnectedError: the client went away in the middle.
        """
        now = asyncio.get_running_loop().time
        arriving = self.arriving
        while not self.body_ended:
            held: list[bytes] = []
            size = 0
            wanted = at_least
            if self._came < SMALL:
                wanted = min(at_least, SMALL)
            else:
                await arriving.hold(_WORK)
            progress = SMALL
            arriving.waits()
            begun = now()
            try:
                async with asyncio.timeout(self._patience) as silence:
                    while size < wanted and not self.body_ended:
                        event = await self._receive()
                        if event["type"] == "http.disconnect":
                            raise DisconnectedError
                        self.body_ended = not event.get("more_body")
                        if piece := event.get("body"):
                            held.append(piece)
                            size += len(piece)
                            if size >= progress:
                                progress = size + SMALL
                                arriving.waits()
                            self._since_progress += len(piece)
                            if self._since_progress >= _PROGRESS:
                                self._since_progress = 0
                                self._patience = self._body_timeout
                                begun = now()
                                silence.reschedule(begun + self._patience)
            except TimeoutError:
                self._is_silent = True
                raise HttpError(408, f"less than {_PROGRESS} bytes of the body came in {self._body_timeout:g} s") from None
            self._patience -= now() - begun
            self._came += size
            arriving.works()
            if held:
                yield held[0] if len(held) == 1 else b"".join(held)

    async def forget_body(self) -> bool:
        """Before the answer to a body that is refused: whether the connection can be used further.

        Over HTTP/2, an answer that comes before the end of the body makes the engine reset the stream. HTTP/2 allows that, but curl
        7.88 may take it for a broken connection, and the answer is lost; Nix hangs when a PUT ends so. So the rest is taken, up to
        a bound. Over HTTP/1.1 it may come behind the answer, if it is short.

        Raises:
            DisconnectedError: the client went away.
        """
        if not is_http1(self._scope):
            if not self._is_silent:
                await self._drain(_REST_HTTP2, _REST_TIME_HTTP2)
            return True
        length = int(self.headers.get(b"content-length", b"-1").partition(b",")[0])
        return not self.has_rest or (not self._is_silent and 0 <= length - self._came <= _SHORT)

    async def is_over(self) -> bool:
        """Behind the answer, where there is a rest: whether it was short and came soon. If not, nothing follows it.

        The engine (h2corn 2.0) waits for the rest without an end, which keeps a connection, and a shutdown.

        Raises:
            DisconnectedError: the client went away.
        """
        await self._drain(_REST, _REST_TIME)
        return self.body_ended

    async def see_end(self) -> None:
        """Behind the end of the connection: take the engine's rest of the body, which keeps the engine from seeing the end.

        Raises:
            DisconnectedError: the end was seen, as it should.
        """
        await self._drain(_REST, _SEEN)

    @property
    def has_rest(self) -> bool:
        """Whether more of the body may come over HTTP/1.1."""
        return (
            (b"content-length" in self.headers or b"transfer-encoding" in self.headers)
            and not self.body_ended
            and is_http1(self._scope)
        )

    async def _drain(self, most: int, seconds: float) -> None:
        """Take up to `most` bytes of the body that come in `seconds`."""
        if not self.body_ended:
            self.body_ended = await drained(self._receive, most, seconds)

    async def decoded_body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes when its Content-Encoding is undone.

        Raises:
            HttpError: it is larger (413), in an encoding that is not known (415), or as `body`.
            InvalidError: it is not in its stated encoding.
        """
        return b"".join([piece async for piece in self._kept(self.decoded(limit))])

    async def decoded(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The pieces of the body with its Content-Encoding undone; at most `limit` bytes, before and after that.

        Raises:
            HttpError, InvalidError: as `decoded_body`.
        """
        encoding = self.headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower() or "identity"
        name = _ENCODINGS.get(encoding)
        if name is None:
            raise HttpError(415, f"Content-Encoding {encoding!r} is not known here (known: {', '.join(_ENCODINGS)})")
        if name == "none":
            async for piece in self._bounded(limit):
                yield piece
            return
        decompress = decompressor(name, max_window=NARROW_WINDOW)
        size = 0
        async for compressed in self._bounded(limit):
            if not self.body_ended:
                await self.arriving.hold(_WORK + NARROW_WINDOW)
            async for data in from_thread(decompress.feed(compressed)):
                size += len(data)
                if size > limit:
                    raise HttpError(413, f"the body has more than {limit} bytes when it is decompressed: too many")
                yield data
        decompress.finish()

    async def whole_body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes.

        Raises:
            HttpError: it is larger (413), or as `body`.
        """
        return b"".join([piece async for piece in self._kept(self._bounded(limit))])

    async def _kept(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces, all of which are kept."""
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size > SMALL:
                await self.arriving.hold(size)
            yield piece

    async def _bounded(self, limit: int) -> AsyncGenerator[bytes, None]:
        # The engine lets several lengths through that agree.
        stated = int(self.headers.get(b"content-length", b"0").partition(b",")[0])
        if stated > limit:
            raise HttpError(413, f"the body has {stated} bytes; at most {limit} are taken here")
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > limit:
                raise HttpError(413, f"the body has more than {limit} bytes, which are taken at most here")
            yield piece


def _segments(path: bytes) -> list[bytes]:
    if len(path) > _LONGEST_PATH:
        raise HttpError(414, f"the path has {len(path)} bytes; at most {_LONGEST_PATH} are looked at")
    segments = path.split(b"/")[1:]
    hidden = b"\0" in path
    if b"%" in path:
        segments = [unquote_to_bytes(segment) for segment in segments]
        hidden = any(b"/" in segment or b"\0" in segment for segment in segments)
    if hidden or b"." in segments or b".." in segments:
        raise HttpError(400, "the path holds `.`, `..`, an encoded slash or a NUL")
    return segments


def _fields(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        fields = {}
        for name, value in pairs:
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields

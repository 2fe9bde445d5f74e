"""What was asked: path, header fields, body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from urllib.parse import parse_qs, unquote_to_bytes

from tvix_store.asgi import DisconnectedError, Event, Receive
from tvix_store.compression import decompressor
from tvix_store.http.status import HttpError

_LONGEST_PATH = 4096
_ENCODINGS = {
    "identity": "none",
    "": "none",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
    "br": "br",
    "xz": "xz",
    "bzip2": "bzip2",
}
"""Content-Encodings, and Nix's names for them; newer versions of Nix send narinfos, listings and logs so."""


class Request:
    """A request, whose body may be read once.

    Raises:
        HttpError: the path is too long, or holds a NUL, an encoded slash, or `.` or `..` between slashes.
    """

    def __init__(self, scope: Event, receive: Receive, body_timeout: float) -> None:
        self.method: str = scope["method"]
        self.segments = _segments(scope["raw_path"])
        """The parts of the path between its slashes, each decoded."""
        self.headers = _fields(scope["headers"])
        """Header fields by lower-case name; of one that is there several times, all values behind each other, with commas."""
        self._scope = scope
        self._receive = receive
        self._body_timeout = body_timeout

    @property
    def has_query(self) -> bool:
        return bool(self._scope["query_string"])

    @cached_property
    def query(self) -> dict[str, str]:
        """The last value of each name in the query."""
        pairs = parse_qs(self._scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=20)
        return {name: values[-1] for name, values in pairs.items()}

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the body, as they come.

        Raises:
            HttpError: nothing came for too long (408).
            DisconnectedError: the client went away in the middle.
        """
        while True:
            try:
                async with asyncio.timeout(self._body_timeout):
                    event = await self._receive()
            except TimeoutError:
                closing = ((b"connection", b"close"),) if self._scope.get("http_version", "1.1").startswith("1") else ()
                raise HttpError(408, f"nothing of the body came for {self._body_timeout:g} s", closing) from None
            if event["type"] == "http.disconnect":
                raise DisconnectedError
            body: bytes = event.get("body", b"")
            if body:
                yield body
            if not event.get("more_body"):
                return

    async def decoded_body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes when its Content-Encoding is undone.

        Raises:
            HttpError: it is larger (413), in an encoding that is not known (415), or as `body`.
            InvalidError: it is not what its encoding says.
        """
        body = await self.whole_body(limit)
        encoding = self.headers.get(b"content-encoding", b"identity").decode("latin-1").strip().lower()
        name = _ENCODINGS.get(encoding)
        if name is None:
            raise HttpError(415, f"Content-Encoding {encoding!r} is not known here (known: {', '.join(_ENCODINGS)})")
        return body if name == "none" else await asyncio.to_thread(_decoded, body, name, limit)

    async def whole_body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes.

        Raises:
            HttpError: it is larger (413), or as `body`.
        """
        if int(self.headers.get(b"content-length", b"0")) > limit:
            raise HttpError(413, f"the body has {self.headers[b'content-length'].decode()} bytes; at most {limit} are taken here")
        pieces: list[bytes] = []
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > limit:
                raise HttpError(413, f"the body has more than {limit} bytes, which are taken at most here")
            pieces.append(piece)
        return b"".join(pieces)


def _segments(path: bytes) -> list[bytes]:
    if len(path) > _LONGEST_PATH:
        raise HttpError(414, f"the path has {len(path)} bytes; at most {_LONGEST_PATH} are looked at")
    segments = path.split(b"/")[1:]
    if b"%" in path:
        segments = [unquote_to_bytes(segment) for segment in segments]
    if b"." in segments or b".." in segments or any(b"/" in segment or b"\0" in segment for segment in segments):
        raise HttpError(400, "the path holds `.`, `..`, an encoded slash or a NUL")
    return segments


def _fields(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        fields = {}
        for name, value in pairs:
            fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _decoded(body: bytes, compression: str, limit: int) -> bytes:
    decompress = decompressor(compression)
    pieces: list[bytes] = []
    size = 0
    for piece in decompress.feed(body):
        size += len(piece)
        if size > limit:
            raise HttpError(413, f"the body has more than {limit} bytes when it is decompressed, which are taken at most here")
        pieces.append(piece)
    decompress.finish()
    return b"".join(pieces)

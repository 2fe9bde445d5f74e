"""What was asked: path, header fields, body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from functools import cached_property
from urllib.parse import parse_qs, unquote_to_bytes

from tvix_store.asgi import DisconnectedError, Event, Receive
from tvix_store.compression import decompressor
from tvix_store.http.status import HttpError

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
        self._body_ended = False

    @property
    def has_query(self) -> bool:
        return bool(self._scope["query_string"])

    @property
    def rest(self) -> bytes:
        """What is behind the first part of the path, decoded, where the query is a part of a name.

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

        The engine hands over 8 KiB at a time, 131,072 pieces a GiB: what is done for each of these counts.

        Raises:
            HttpError: nothing came for too long (408).
            DisconnectedError: the client went away in the middle.
        """
        now = asyncio.get_running_loop().time
        while not self._body_ended:
            held: list[bytes] = []
            size = 0
            try:
                async with asyncio.timeout(self._body_timeout) as silence:
                    while size < at_least and not self._body_ended:
                        event = await self._receive()
                        if event["type"] == "http.disconnect":
                            raise DisconnectedError
                        self._body_ended = not event.get("more_body")
                        if piece := event.get("body"):
                            held.append(piece)
                            size += len(piece)
                        silence.reschedule(now() + self._body_timeout)
            except TimeoutError:
                self._body_ended = True
                closing = ((b"connection", b"close"),) if self._scope.get("http_version", "1.1").startswith("1") else ()
                raise HttpError(408, f"nothing of the body came for {self._body_timeout:g} s", closing) from None
            if held:
                yield held[0] if len(held) == 1 else b"".join(held)

    async def forget_body(self) -> None:
        """Take what is left of a body that is refused, where it comes over HTTP/2.

        There, an answer that comes before the end of the body makes the engine reset the stream. That is what HTTP/2 says, but
        curl 7.88 may take it for a broken connection, and the answer is lost; Nix hangs when a PUT ends so. Over HTTP/1.1 the
        engine itself takes the rest, behind the answer.

        Raises:
            DisconnectedError: the client went away.
        """
        if self._body_ended or not self._scope["http_version"].startswith("2"):
            return
        with suppress(HttpError):
            async for _ in self.body():
                pass

    async def decoded_body(self, limit: int) -> bytes:
        """The body, of at most `limit` bytes when its Content-Encoding is undone.

        Raises:
            HttpError: it is larger (413), in an encoding that is not known (415), or as `body`.
            InvalidError: it is not what its encoding says.
        """
        return b"".join([piece async for piece in self.decoded(limit)])

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
        decompress = decompressor(name)
        size = 0
        async for compressed in self._bounded(limit):
            pieces = decompress.feed(compressed)
            while (data := await asyncio.to_thread(next, pieces, None)) is not None:
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
        return b"".join([piece async for piece in self._bounded(limit)])

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

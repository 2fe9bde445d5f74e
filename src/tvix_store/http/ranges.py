"""Conditions and ranges of a GET, held against the representation that would be sent. Source: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response, length
from tvix_store.http.status import HttpError

_RANGE = re.compile(rb"bytes=[ \t]*(\d{0,100})-(\d{0,100})[ \t]*", re.IGNORECASE)


class Selected(NamedTuple):
    """The answer: status 200, 206 or 304, the bytes from `start` up to `stop`, and the header fields of both."""

    status: int
    start: int
    stop: int
    headers: Headers


def not_modified(request: Mapping[bytes, bytes], etag: bytes) -> bool:
    """Whether the client has the representation that `etag` (with its quotes) names."""
    wanted = request.get(b"if-none-match")
    return wanted is not None and any(each.strip().removeprefix(b"W/") in (b"*", etag) for each in wanted.split(b","))


def select(request: Request, size: int, etag: bytes) -> Selected:
    """The part that a client wants of a representation of `size` bytes. One range is served; of several, everything.

    HEAD tells what a GET without a range would, as ranges are for GET alone.

    Raises:
        HttpError: the range lies behind the end (416), or the client wants another representation alone (412).
    """
    fields = request.headers
    only = fields.get(b"if-match")
    if only is not None and not any(each.strip() in (b"*", etag) for each in only.split(b",")):
        raise HttpError(412, "this is not what If-Match names", ((b"etag", etag),))
    if not_modified(fields, etag):
        return Selected(304, 0, 0, (length(size), (b"etag", etag)))
    common = ((b"etag", etag), (b"accept-ranges", b"bytes"))
    everything = Selected(200, 0, size, (length(size), *common))
    wanted = _RANGE.fullmatch(fields.get(b"range", b"")) if request.method == "GET" else None
    if wanted is None or fields.get(b"if-range", etag) != etag:
        return everything
    first, last = wanted[1], wanted[2]
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return everything
    elif last:
        start, stop = max(size - int(last), 0), size
    else:
        return everything
    if start >= stop:
        raise HttpError(
            416, f"the range begins behind the end: there are {size} bytes", ((b"content-range", b"bytes */%d" % size),)
        )
    headers = (length(stop - start), (b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, size)), *common)
    return Selected(206, start, stop, headers)


async def made_response(
    request: Request, etag: bytes, more: Headers, body: AsyncGenerator[bytes, None], *, countable: bool = True
) -> Response:
    """200 with a body that is made while it is sent, or 304; `more` are header fields that describe it.

    Where the body is not sent, it is made to be counted: the engine would say that it has 0 bytes (see `response`). It does where
    the body is not `countable`.
    """
    unchanged = not_modified(request.headers, etag)
    if request.method == "GET" and not unchanged:
        return Response(200, (*more, (b"etag", etag)), body)
    counted = (length(sum([len(piece) async for piece in body])),) if countable else ()
    return Response(304 if unchanged else 200, (*more, *counted, (b"etag", etag)))

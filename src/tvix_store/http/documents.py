"""`log/`, `realisations/`, `build-trace-v2/`, `debuginfo/`: the documents that Nix puts beside narinfos, kept and given back.

A document that the store lacks may come from upstream caches. A Content-Encoding is undone before a document is kept. So every
client reads every document, and equal ones are stored once. The content type follows from the kind of the document, and a
client's own type is ignored: a log that claims to be HTML must not become a page of this server.

The last put wins, since a log or a realisation of a derivation may truly differ from build to build. Nix itself overwrites them.
A client that may put paths may put documents. Realisations carry signatures of their own, and Nix checks these.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from tvix_store.http.files import INERT, file_response
from tvix_store.http.json_body import check_json
from tvix_store.http.ranges import not_modified
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response, length, text
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.realisation import OUTPUT_NAME, REALISATION
from tvix_store.operations.nars.links import NarLinks
from tvix_store.operations.paths.documents import MAX_JSON, MAX_LOG, KeptDocuments
from tvix_store.operations.trees.walk import read_contents
from tvix_store.services.store import Store

_MOST_NESTED = 100
"""Arrays and objects in each other in JSON that is parsed again. Python's parser takes as many as its stack has room for, which
differs from call to call; Nix's documents have 4."""
_DERIVATION = r"[0-9a-df-np-sv-z]{32}-(?!\.{1,2}-)[0-9A-Za-z+\-._?=]{1,207}\.drv"
_ARCHIVE = re.compile(r"\.\./nar/([0-9a-df-np-sv-z]{52})\.nar(?:\.[a-z0-9]+)?")
"""The file of a NAR, as `debuginfo/` refers to it."""
_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON = ((b"content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of document, by the first part of its path. A pattern for the rest has the document's name as its first group."""

    rest: re.Pattern[str]
    what: str
    type: Headers
    limit: int


_DEBUGINFO = _Kind(
    # Nix puts `<build id>.debug`; debuggers ask for either.
    re.compile(r"([0-9a-f]{4,128})(?:\.debug)?"),
    "debug information is named by a build id in hexadecimal: debuginfo/<build id>, perhaps with .debug",
    _JSON,
    MAX_JSON,
)
_KINDS = {
    "log": _Kind(re.compile(f"({_DERIVATION})"), "a log is named by its derivation: log/<hash>-<name>.drv", _TEXT, MAX_LOG),
    "realisations": _Kind(
        re.compile(rf"({REALISATION})\.doi"),
        "a realisation is named realisations/<hash of the derivation>!<output>.doi",
        _JSON,
        MAX_JSON,
    ),
    "build-trace-v2": _Kind(
        re.compile(rf"({_DERIVATION}/{OUTPUT_NAME})\.doi"),
        "a build trace is named build-trace-v2/<hash>-<name>.drv/<output>.doi",
        _JSON,
        MAX_JSON,
    ),
    "debuginfo": _DEBUGINFO,
}
FIRST_PARTS = frozenset(kind.encode() for kind in _KINDS)
"""The first parts of the paths that are documents'."""


class Documents:
    """The documents of a store."""

    def __init__(self, store: Store, links: NarLinks | None) -> None:
        self._store = store
        self._kept = KeptDocuments.of(store)
        self._links = links

    async def get(self, request: Request) -> Response:
        """A document, as it was put last, or as an upstream has it."""
        kind, first, name = _parse(request)
        file = await self._kept.get(first, name) if self._kept is not None else None
        if file is None:
            return await self._foreign(request, kind, first, name)
        if kind is _DEBUGINFO and self._links is not None:
            body = b"".join([piece async for piece in read_contents(self._store.blobs, file)])
            return await self._debuginfo(request, body, self._links)
        return file_response(request, self._store.blobs, file, kind.type)

    async def put(self, request: Request) -> Response:
        """Keep a document."""
        kind, first, name = _parse(request)
        if self._kept is None:
            raise HttpError(403, "this store has no place for logs, realisations and their like; push to one that has")
        data: AsyncIterator[bytes] = request.decoded(kind.limit)
        if kind.type is _JSON:
            body = b"".join([piece async for piece in data])
            await check_json(body, most_nested=_MOST_NESTED)
            data = _stream(body)
        await self._kept.put(first, name, data)
        return text(201, "it is stored")

    async def delete(self, request: Request) -> Response:
        """Delete a document of the store itself."""
        _, first, name = _parse(request)
        if self._kept is None or not await self._kept.delete(first, name):
            raise HttpError(404, "this is not here")
        return text(200, "it is deleted")

    async def _foreign(self, request: Request, kind: _Kind, first: str, name: str) -> Response:
        """A document that upstreams may have. A log is passed on as it comes, and always whole: ranges are ignored."""
        foreign = self._store.foreign_documents
        body = await foreign.get(first, name) if foreign is not None else None
        if body is None:
            raise HttpError(404, "this is not here")
        if isinstance(body, bytes):
            if kind is _DEBUGINFO and self._links is not None:
                return await self._debuginfo(request, body, self._links)
            return Response(200, (*kind.type, *INERT, length(len(body))), body)
        if request.method == "HEAD":
            await body.aclose()
            body = b""
        return Response(200, (*kind.type, *INERT), body)

    async def _debuginfo(self, request: Request, body: bytes, links: NarLinks) -> Response:
        """Debug information names a file, which was taken apart here. The NAR itself is named instead."""
        told: Any = json.loads(body)
        archive = _ARCHIVE.fullmatch(str(told["archive"])) if isinstance(told, dict) and "archive" in told else None
        link = await links.get(nixbase32.decode(archive[1])) if archive else None
        if link is not None:
            body = json.dumps({**told, "archive": f"../nar/{nixbase32.encode(link.nar.sha256)}.nar"}).encode()
        etag = b'"%b"' % blake3(body).hexdigest().encode()
        if not_modified(request.headers, etag):
            return Response(304, (length(len(body)), (b"etag", etag)))
        return Response(200, (*_JSON, *INERT, length(len(body)), (b"etag", etag)), body)


def _parse(request: Request) -> tuple[_Kind, str, str]:
    """The kind of a document, its first part, and its name."""
    first = request.segments[0].decode()
    kind = _KINDS[first]
    name = kind.rest.fullmatch(request.rest.decode("latin-1"))
    if name is None:
        raise HttpError(404, kind.what)
    return kind, first, name[1]


async def _stream(body: bytes) -> AsyncIterator[bytes]:
    yield body

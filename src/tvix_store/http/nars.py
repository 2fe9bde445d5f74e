"""NARs, rendered while they are sent."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncGenerator

from tvix_store.errors import InvalidError
from tvix_store.http.ranges import select
from tvix_store.http.request import Request
from tvix_store.http.response import Response
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.nodes import Node, decode_node
from tvix_store.operations.render_nar import render_nar
from tvix_store.services.store import Store

_TYPE = (b"content-type", b"application/x-nix-nar")
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")
_BASE64 = re.compile(rb"[A-Za-z0-9_-]{1,4096}")


class Nars:
    """The NARs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get_rendered(self, request: Request, name: bytes) -> Response:
        """The NAR of the root node that is encoded in `name`."""
        node = _root_node(name)
        facts = await self._store.nar.calculate(node)
        stated = request.query.get("narsize")
        if stated is not None and stated != str(facts.size):
            raise HttpError(404, f"the NAR has {facts.size} bytes, not {stated[:20]}")
        etag = b'"%b"' % nixbase32.encode(facts.sha256).encode()
        status, start, stop, headers = select(request.headers, facts.size, etag)
        return Response(status, (_TYPE, _FOR_EVER, *headers), self._render(node, start, stop))

    async def _render(self, node: Node, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        at = 0
        async for piece in render_nar(self._store.blobs, self._store.directories, node):
            if at >= stop:
                return
            if at + len(piece) > start:
                yield piece[max(start - at, 0) : stop - at]
            at += len(piece)


def _root_node(name: bytes) -> Node:
    if not _BASE64.fullmatch(name):
        raise HttpError(404, "a NAR is named by its root node: base64url without padding")
    try:
        inner, node = decode_node(urlsafe_b64decode(name + b"=" * (-len(name) % 4)))
    except (Base64Error, InvalidError) as error:
        raise InvalidError(f"the name of the NAR is no root node: {error}") from None
    if inner:
        raise InvalidError("the root node in the name of the NAR must not have a name")
    return node

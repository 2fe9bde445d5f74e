"""NARs, rendered while they are sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tvix_store.compression import DETECT, of_suffix
from tvix_store.compression.compressor import Compressor, compressor
from tvix_store.errors import UnsupportedError
from tvix_store.http.ranges import select
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.nodes import Node
from tvix_store.operations.nars.check import check_nar
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.node_urls import parse_node_name
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.planner import can_be_planned, is_worth_a_plan
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.nars.seek import NarLayouts
from tvix_store.services.store import Store

_TYPE = (b"content-type", b"application/x-nix-nar")
_ZSTD = (b"content-type", b"application/zstd")
_PUBLIC = (b"cache-control", b"public, max-age=31536000, immutable")
"""A year, the longest time that caches heed."""
_FOR_THE_CLIENT = (b"cache-control", b"max-age=31536000, immutable")
"""The same where the application adds that the answer is for one client."""
_BASE64 = re.compile(rb"[A-Za-z0-9_-]{1,4096}")


_FILE = re.compile(rb"([0-9a-df-np-sv-z]{52})\.nar((?:\.[a-z0-9]+)?)")


def parse_file_name(name: bytes) -> tuple[bytes, str]:
    """The SHA-256 (32 bytes) and the suffix in the name of a NAR's file.

    Raises:
        HttpError: `name` is not one.
    """
    matched = _FILE.fullmatch(name)
    if matched is None:
        raise HttpError(404, "a NAR is named <nixbase32 of the file's SHA-256>.nar, and a suffix for its compression")
    return nixbase32.decode(matched[1].decode()), matched[2].decode()


class Nars:
    """The NARs of a store."""

    def __init__(self, store: Store, links: NarLinks | None, planned: PlannedNars | None) -> None:
        self._store = store
        self._links = links
        self._layouts = NarLayouts(store.blobs)
        self._planned = planned

    async def get_rendered(self, request: Request, name: bytes) -> Response:
        """The NAR of the root node that is encoded in `name`.

        It has no Content-Encoding, whatever the client accepts: Nix 2.34 accepts zstd, and resumes no download that is encoded.
        """
        node = _root_node(name)
        facts = await self._store.nar.calculate(node)
        stated = request.query.get("narsize")
        if stated is not None and stated != str(facts.size):
            raise HttpError(404, f"the NAR has {facts.size} bytes, not {stated[:20]!r}")
        return self._rendered(request, NarLink(facts, node), (_TYPE, _for_ever(request)))

    async def get_file(self, request: Request, name: bytes) -> Response:
        """The NAR that has, or whose compressed file had when it was put, the hash in `name`.

        As zstd it is served from the frames that are stored, whatever file was put. Other files are not kept, but Nix remembers for
        a month those that it put itself, and their compression, and may want them back. They are made anew, of other bytes; it
        checks the hash of the NAR alone.
        """
        file_hash, suffix = parse_file_name(name)
        link = await self._links.get(file_hash) if self._links is not None else None
        if link is None:
            raise HttpError(404, "this NAR is not here")
        # A power cut may keep a link and lose content. Nix sends only what it hears is not here.
        await check_nar(self._store.nar, link.node, link.nar, f"NAR {link.nar.sha256.hex()}")
        if suffix == ".zst" and self._planned is not None and can_be_planned(link.node, link.nar.size):
            return await self._passed_through(request, self._planned, link.node, (_ZSTD, _for_ever(request)))
        if suffix == "" and file_hash == link.nar.sha256:
            return self._rendered(request, link, (_TYPE, _for_ever(request)))
        return Response(200, (_TYPE,), _compressed(self._bytes(link, 0, link.nar.size), _compressor(suffix)))

    async def _passed_through(self, request: Request, planned: PlannedNars, node: Node, more: Headers) -> Response:
        plan = await planned.plan(node)
        etag = b'"%b"' % (await planned.etag(plan)).hex().encode()
        status, start, stop, headers = select(request, plan.zstd_size, etag)
        return Response(status, (*more, *headers), planned.read_zstd(node, plan, start, stop))

    def _rendered(self, request: Request, nar: NarLink, more: Headers) -> Response:
        etag = b'"%b"' % nixbase32.encode(nar.nar.sha256).encode()
        status, start, stop, headers = select(request, nar.nar.size, etag)
        return Response(status, (*more, *headers), self._bytes(nar, start, stop))

    async def _bytes(self, nar: NarLink, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a NAR from `start` up to `stop`."""
        node, is_whole = nar.node, (start, stop) == (0, nar.nar.size)
        plan = None
        if self._planned is not None and is_worth_a_plan(node, nar.nar.size):
            # To plan takes 10 µs a chunk: nobody waits for that who wants a part.
            plan = await (self._planned.plan(node) if is_whole else self._planned.known(node))
        if plan is not None and self._planned is not None:
            body = self._planned.read(node, plan, start, stop)
        else:
            tree = self._store.directories.tree(node)
            body = render_nar(self._store.blobs, tree) if is_whole else self._layouts.render_range(tree, start, stop)
        async with aclosing(body):
            async for piece in body:
                yield piece


def _for_ever(request: Request) -> tuple[bytes, bytes]:
    """The field that lets caches keep an answer for a year."""
    return _FOR_THE_CLIENT if request.grant.name else _PUBLIC


def _compressor(suffix: str) -> Compressor:
    try:
        name = of_suffix(suffix)
        # Several compressions have no suffix; that of Nix which people use is gzip.
        return compressor("gzip" if name == DETECT else name)
    except UnsupportedError as error:
        raise HttpError(404, str(error)) from None


async def _compressed(nar: AsyncGenerator[bytes, None], stream: Compressor) -> AsyncGenerator[bytes, None]:
    async with aclosing(nar):
        async for piece in nar:
            if data := await asyncio.to_thread(stream.compress, piece):
                yield data
    yield await asyncio.to_thread(stream.flush)


def _root_node(name: bytes) -> Node:
    node = parse_node_name(name.decode("latin-1"))
    if node is None:
        raise HttpError(404, "a NAR is named by its root node: base64url without padding")
    return node

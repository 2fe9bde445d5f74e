"""NARs, rendered while they are sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tvix_store.compression import DETECT, of_suffix
from tvix_store.compression.compressor import Compressor, compressor
from tvix_store.errors import UnsupportedError
from tvix_store.http.names import PATH, parse_file_name, parse_output_hash
from tvix_store.http.ranges import select
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nodes import Node
from tvix_store.operations.nars.check import check_nar
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.node_urls import parse_node_name
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.planner import can_be_planned, is_worth_a_plan
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.nars.seek import NarLayouts
from tvix_store.services.foreign_paths import ForeignPaths
from tvix_store.services.store import Store

_TYPE = (b"content-type", b"application/x-nix-nar")
_ZSTD = (b"content-type", b"application/zstd")
_PUBLIC = (b"cache-control", b"public, max-age=31536000, immutable")
"""A year, the longest time that caches heed."""
_FOR_THE_CLIENT = (b"cache-control", b"max-age=31536000, immutable")
"""The same where the application adds that the answer is for one client."""
_MOST_FOLLOWING = 32
"""Clients of a worker that get NARs as they are fetched. They hold a third of all places for as long as the upstream takes. Other
clients get the NAR when it is stored."""
_BASE64 = re.compile(rb"[A-Za-z0-9_-]{1,4096}")


class Nars:
    """The NARs of a store."""

    def __init__(self, store: Store, links: NarLinks | None, planned: PlannedNars | None) -> None:
        self._store = store
        self._links = links
        self._layouts = NarLayouts(store.blobs)
        self._planned = planned
        self._foreign = store.foreign_paths
        self._following = 0
        """Clients that get a NAR while it is fetched."""

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
        if self._foreign is not None and request.has_query and suffix == "" and PATH in request.query:
            output_hash = parse_output_hash(request.query[PATH].encode())
            kept = await self._foreign.kept(output_hash)
            if kept is None:
                theirs = await self._foreign.offered(output_hash, file_hash)
                if theirs is not None:
                    return self._unfetched(request, self._foreign, theirs)
            elif link is None and kept.nar.sha256 == file_hash:
                link = NarLink(kept.nar, kept.node)
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

    def _unfetched(self, request: Request, foreign: ForeignPaths, narinfo: NarInfo) -> Response:
        etag = b'"%b"' % nixbase32.encode(narinfo.nar.sha256).encode()
        status, start, stop, headers = select(request, narinfo.nar.size, etag)
        if status == 304:
            return Response(status, headers)
        return Response(status, (_TYPE, _for_ever(request), *headers), self._fetched(foreign, narinfo, start, stop), waits=True)

    async def _fetched(self, foreign: ForeignPaths, narinfo: NarInfo, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a NAR that is fetched meanwhile. A client that wants all of them gets them as they come.

        The end of the NAR comes when the whole was verified and stored. What the client has not had by then, the store gives.
        """
        at = start
        follows = (start, stop) == (0, narinfo.nar.size) and self._following < _MOST_FOLLOWING
        self._following += follows
        try:
            with foreign.fetch(narinfo.store_path.output_hash, narinfo.nar.sha256) as fetch:
                if follows:
                    async with aclosing(fetch.beginning()) as pieces:
                        async for piece in pieces:
                            at += len(piece)
                            yield piece
                path_info = await fetch.result()
        finally:
            self._following -= follows
        if at == start:
            yield b""  # nothing is made yet: the client may have to wait for a place
        if at < stop:
            async with aclosing(self._bytes(NarLink(path_info.nar, path_info.node), at, stop)) as rest:
                async for piece in rest:
                    yield piece

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

"""`<hash>.ls`: the entries of a path and their places in its NAR, as JSON (version 1 of Nix's listings).

Listings are made from the directories. A listing that Nix puts is checked and forgotten.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from blake3 import blake3

from tvix_store.errors import NotFoundError
from tvix_store.http.json_body import check_json
from tvix_store.http.names import parse_output_hash
from tvix_store.http.ranges import made_response
from tvix_store.http.request import Request
from tvix_store.http.response import Response, text
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, encode_node
from tvix_store.operations.nars.around import around
from tvix_store.operations.trees.walk import walk_tree
from tvix_store.services.directories import DirectoryTree
from tvix_store.services.store import Store

_PIECE = 64 * 1024
_MAX_TAKEN = 1 << 30
_MAX_CHECKED = 1 << 20
"""Bytes of the largest listing that is parsed when it is put, which takes ten times the memory, and holds others up for 0.1 s. It
is not kept in any case."""

_MAX_COUNTED = 200_000
"""Entries of a tree whose listing is made only to be counted, which takes 5 µs each. A few directories may have 50 million."""


class Listings:
    """The listings of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request, name: bytes) -> Response:
        """The listing of the path whose hash (32 characters) is `name`."""
        path_info = await self._store.path_infos.get(parse_output_hash(name))
        if path_info is None:
            raise NotFoundError("path", name.decode())
        etag = b'"ls1-%b"' % blake3(encode_node(b"", path_info.node)).hexdigest().encode()
        listing = format_listing(self._store.directories.tree(path_info.node))
        small = not isinstance(path_info.node, DirectoryNode) or path_info.node.size <= _MAX_COUNTED
        return await made_response(request, etag, ((b"content-type", b"application/json"),), listing, countable=small)

    async def put(self, request: Request, name: bytes) -> Response:
        """Check that the body is JSON, and forget it. Its truth does not matter."""
        parse_output_hash(name)
        start = bytearray()
        async for piece in request.decoded(_MAX_TAKEN):
            start += piece[: _MAX_CHECKED + 1 - len(start)]
        if len(start) <= _MAX_CHECKED:
            # Nix 2.8 writes names as they are, whether or not they are UTF-8.
            await check_json(start, errors="surrogateescape")
        return text(200, "listings are made here from what is in the store")


async def format_listing(tree: DirectoryTree) -> AsyncGenerator[bytes, None]:
    """The listing of the tree's root, in pieces.

    JSON has no way to write a name that is not UTF-8: its odd bytes are escaped as U+DC80 and above, as Python has it.

    Raises:
        NotFoundError, InvalidError: as `walk_tree`.
    """
    parts = ['{"version":1,"root":']
    size = at = depth = 0
    separator = ""
    async for name, node in walk_tree(tree):
        before, behind, deeper = around(name, node, depth)
        at += len(before)
        if node is None:
            parts.append("}}")
        else:
            line = _described(node, at)
            parts.append(f"{separator}{_string(name)}:{line}" if depth else line)
            size += len(parts[-1])
        at += (node.size if isinstance(node, FileNode) else 0) + len(behind)
        separator = "" if isinstance(node, DirectoryNode) else ","
        depth = deeper
        if size >= _PIECE:
            yield "".join(parts).encode()
            parts, size = [], 0
    yield "".join([*parts, "}"]).encode()


def _described(node: Node, offset: int) -> str:
    """The JSON of a node. `offset` is where the contents of a file stand in the NAR. A directory's end before its entries."""
    if isinstance(node, DirectoryNode):
        return '{"type":"directory","entries":{'
    if isinstance(node, FileNode):
        executable = ',"executable":true' if node.executable else ""
        return f'{{"type":"regular","size":{node.size}{executable},"narOffset":{offset}}}'
    return f'{{"type":"symlink","target":{_string(node.target)}}}'


def _string(value: bytes) -> str:
    return json.dumps(value.decode("utf-8", "surrogateescape"))

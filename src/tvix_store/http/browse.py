"""`serve/<hash>-<name>/…`: the files of a path, for people with browsers.

Symlinks are followed where they stay in the store: inside the path, and into other paths that are here. Content may be hostile. Its
type is set here, and never guessed by a browser, and it runs no scripts (`files.INERT`).
"""

from __future__ import annotations

import codecs
import mimetypes
from collections.abc import AsyncGenerator
from html import escape
from urllib.parse import quote_from_bytes

from tvix_store.concurrency.cooperative import cooperatively
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.http.files import file_response
from tvix_store.http.ranges import made_response
from tvix_store.http.request import Request
from tvix_store.http.response import Response, text
from tvix_store.http.status import HttpError
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.operations.trees.lookup import lookup_in_store
from tvix_store.services.directories import read_directory
from tvix_store.services.store import Store

_PIECE = 64 * 1024
_LOOKED_AT = 1024
"""Bytes at the start of a file without a known extension that must be text for it to be shown as such."""
_TYPES = mimetypes.MimeTypes()
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_INDEX_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = "body{font-family:monospace}td{padding:0 1em 0 0}td.size{text-align:right}"


class Browse:
    """The files of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request, names: list[bytes]) -> Response:
        """A file, or the index of a directory; the first name is that of a store path, the last one empty behind a slash."""
        is_directory_url = len(names) > 1 and names[-1] == b""
        names = names[:-1] if is_directory_url else names
        if b"" in names or any(b"/" in name for name in names):
            raise HttpError(404, "a path has no empty names, and no slashes in them")
        try:
            tree = await lookup_in_store(self._store, b"/".join(names))
        except (InvalidError, ExhaustedError) as error:
            raise HttpError(404, str(error)) from None
        node = tree.root
        if isinstance(node, DirectoryNode):
            if not is_directory_url:
                return text(302, "a directory ends with a slash", ((b"location", b"./" + _quoted(names[-1]) + b"/"),))
            return await self._index(request, names, await read_directory(tree, node.digest))
        if is_directory_url or not isinstance(node, FileNode):
            raise HttpError(404, "this is no directory")
        return file_response(request, self._store.blobs, node, ((b"content-type", await self._type(names[-1], node)),))

    async def _type(self, name: bytes, file: FileNode) -> bytes:
        """The media type of a file."""
        guessed, packed = _TYPES.guess_type(name.decode("latin-1"))
        if packed is not None:
            return _PACKED.get(packed, "application/octet-stream").encode()
        if guessed is None:
            start = b"".join([piece async for piece in self._store.blobs.read(file.digest, 0, _LOOKED_AT)])
            guessed = "text/plain" if _is_text(start) else "application/octet-stream"
        return (f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed).encode()

    async def _index(self, request: Request, names: list[bytes], directory: Directory) -> Response:
        etag = b'"index1-%b"' % directory.digest.hex.encode()
        headers = (
            (b"content-type", b"text/html; charset=utf-8"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", _INDEX_POLICY),
        )
        return await made_response(request, etag, headers, format_index(names, directory))


async def format_index(names: list[bytes], directory: Directory) -> AsyncGenerator[bytes, None]:
    title = escape("/".join(map(_shown, names)))
    head = f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
    parts = [head, f"<body><h1>{title}</h1>\n<table>\n"]
    if len(names) > 1:
        parts.append('<tr><td class="size"></td><td><a href="../">../</a></td></tr>\n')
    size = 0
    async for name, node in cooperatively(directory.entries.items()):
        row = _row(name, node)
        parts.append(row)
        size += len(row)
        if size >= _PIECE:
            yield "".join(parts).encode()
            parts, size = [], 0
    yield "".join([*parts, "</table>\n</body></html>\n"]).encode()


def _row(name: bytes, node: Node) -> str:
    shown, href, size, more = _shown(name), "./" + _quoted(name).decode(), "", ""
    if isinstance(node, DirectoryNode):
        shown, href = shown + "/", href + "/"
    elif isinstance(node, SymlinkNode):
        more = f" → {_shown(node.target)}"
    else:
        size = str(node.size)
        more = " *" if node.executable else ""
    return f'<tr><td class="size">{size}</td><td><a href="{href}">{escape(shown)}</a>{escape(more)}</td></tr>\n'


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _quoted(name: bytes) -> bytes:
    return quote_from_bytes(name, safe="").encode()


def _is_text(start: bytes) -> bool:
    try:
        decoded = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\n\r\f\x1b" for character in decoded)

"""A file as an answer: conditions, ranges, and header fields that keep browsers from running stored content."""

from __future__ import annotations

from tvix_store.http.ranges import select
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response
from tvix_store.model.nodes import FileNode
from tvix_store.operations.trees.walk import read_contents
from tvix_store.services.blobs import BlobService

INERT = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))
"""A browser gives the file an origin of its own, and runs no scripts in it."""


def file_response(request: Request, blobs: BlobService, file: FileNode, more: Headers) -> Response:
    """The contents of a file, with `more` header fields that describe them."""
    etag = b'"%b"' % file.digest.hex.encode()
    status, start, stop, headers = select(request, file.size, etag)
    body = read_contents(blobs, file, start, stop) if start < stop else b""
    return Response(status, (*more, *INERT, *headers), body)

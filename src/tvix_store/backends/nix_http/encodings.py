"""Content encodings: the compression of a body on its way, undone within bounds."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvix_store.compression import MAX_OUTPUT, decompressor
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.errors import ExhaustedError, InvalidError, UnsupportedError
from tvix_store.services.upstream import UpstreamLiesError

_ALIASES = {"x-gzip": "gzip"}
"""Nix stores narinfos with any compression that it was told, such as `xz`. So its names for compressions are names of encodings
too."""


async def decoded(
    body: AsyncGenerator[bytes, None], encoding: str | None, *, most: int = MAX_OUTPUT
) -> AsyncGenerator[bytes, None]:
    """The pieces of `body` without its `Content-Encoding`; decompression happens in a thread.

    Raises:
        UpstreamLiesError: the encoding is unknown, the body is damaged, or makes more than `most` bytes.
    """
    name = (encoding or "").strip().lower()
    name = _ALIASES.get(name, name)
    if name in ("", "identity", "none"):
        async for piece in body:
            yield piece
        return
    try:
        decompress = decompressor(name, max_output=most)
    except UnsupportedError:
        raise UpstreamLiesError(f"the content encoding {name[:40]!r} is unknown") from None
    try:
        async for piece in body:
            async for data in from_thread(decompress.feed(piece)):
                yield data
        decompress.finish()
    except (InvalidError, ExhaustedError) as error:
        raise UpstreamLiesError(f"content encoding {name}: {error}") from None

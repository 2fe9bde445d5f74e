"""The bytes of blobs on their way: cut into messages, checked against their digest, and parts of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing

from blake3 import blake3

from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_chunk

MESSAGE = 1 << 20
"""Bytes of data in a message, and in a piece that a reader gets. Servers take up to 4 MiB, many no more."""


async def in_messages(data: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of MESSAGE bytes; only the last is smaller. Nothing for no bytes."""
    held: list[bytes] = []
    size = 0
    async for piece in data:
        if len(piece) == MESSAGE and not held:  # what imports send
            yield piece
            continue
        held.append(piece)
        size += len(piece)
        if size >= MESSAGE:
            joined = b"".join(held)
            size %= MESSAGE
            for at in range(0, len(joined) - size, MESSAGE):
                yield joined[at : at + MESSAGE]
            held = [joined[len(joined) - size :]] if size else []
    if size:
        yield b"".join(held)


def joined_chunks(messages: Sequence[bytes]) -> bytes:
    """The data of messages BlobChunk that have come together. Some servers send a blob in messages of 2 KiB.

    Raises:
        InvalidError: one is malformed.
    """
    return decode_chunk(messages[0]) if len(messages) == 1 else b"".join(map(decode_chunk, messages))


async def verified(pieces: AsyncGenerator[bytes, None], digest: Digest, server: str) -> AsyncGenerator[bytes, None]:
    """The pieces, cut to MESSAGE bytes. The last one is held back until all are known to match `digest`: so nothing is given
    out of a blob of one piece before it was checked.

    Raises:
        CorruptError: `server` has sent something else.
    """
    hasher = blake3()
    held = b""
    async with aclosing(pieces):
        async for piece in pieces:
            hasher.update(piece)
            for at in range(0, len(held), MESSAGE):
                yield held if len(held) <= MESSAGE else held[at : at + MESSAGE]
            held = piece
    if hasher.digest() != digest.raw:
        raise CorruptError(f"{server}: the server sent other bytes for blob {digest}")
    for at in range(0, len(held), MESSAGE):
        yield held if len(held) <= MESSAGE else held[at : at + MESSAGE]


async def between(pieces: AsyncGenerator[bytes, None], start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
    """Of the bytes in `pieces` those from `start` up to `stop` (None: the end). Bytes behind `stop` are not read."""
    at = 0
    async with aclosing(pieces):
        async for piece in pieces:
            wanted = piece[max(start - at, 0) : None if stop is None else max(stop - at, 0)]
            if wanted:
                yield wanted
            at += len(piece)
            if stop is not None and at >= stop:
                return

"""BackgroundHash: a stream is hashed while it goes on."""

from __future__ import annotations

import asyncio
from typing import Protocol

_HERE = 64 << 10
"""Bytes that are hashed on the event loop: it takes 40 µs, less than a thread's answer."""


class Hash(Protocol):
    """The interface of the hash objects of `hashlib`, and of `blake3`."""

    def update(self, data: bytes, /) -> object: ...


class BackgroundHash:
    """Feeds `hasher`: a piece is hashed in a thread while the next one comes, and a small one at once."""

    def __init__(self, hasher: Hash) -> None:
        self._hash = hasher
        self._hashing: asyncio.Future[object] | None = None

    async def update(self, data: bytes) -> None:
        """Begin to hash `data`, when the piece before it is hashed."""
        await self.finish()
        if len(data) <= _HERE:
            self._hash.update(data)
        else:
            self._hashing = asyncio.get_running_loop().run_in_executor(None, self._hash.update, data)

    async def finish(self) -> None:
        """Wait until all that was given is hashed. Until then the hash belongs to a thread, also where its result is not wanted."""
        if self._hashing is not None:
            await asyncio.wait((self._hashing,))
            self._hashing.result()
            self._hashing = None

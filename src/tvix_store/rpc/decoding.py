"""Decoding of messages. No client waits until the messages of others are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tvix_store.rpc.method import Decode

_AT_ONCE = 4 * 1024
"""Bytes that are decoded on the event loop: of any message at most 2 ms, and as much as a hop to a thread for most."""
_SHORT = 256 * 1024
"""Bytes that take at most 100 ms."""


class Decoder:
    """Decodes small messages at once, and larger ones in two threads: one for messages of up to 256 KiB, one for those above.

    A thread takes the interpreter from the event loop for 5 ms at a time, so others are served meanwhile. Of more threads, each
    would take its 5 ms before the loop runs again. With a single one, a short message would wait for seconds behind long ones.
    A call that ends meanwhile (its caller goes away, or its time is over) does not wait for the thread. Where its message was not
    begun yet, it is never decoded.
    """

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(1, "tvix-store-decode")
        self._long = ThreadPoolExecutor(1, "tvix-store-decode-long")

    async def decoded(self, decode: Decode | None, message: bytes) -> Any:
        """`message`, decoded by `decode`; itself where that is None.

        Raises:
            StoreError: as `decode`.
        """
        if decode is None:
            return message
        if len(message) <= _AT_ONCE:
            return decode(message)
        thread = self._short if len(message) <= _SHORT else self._long
        return await asyncio.get_running_loop().run_in_executor(thread, decode, message)

    async def decompressed(self, messages: Iterator[bytes]) -> bytes | None:
        """The next of some messages, which may have to be decompressed: 16 KiB may become 16 MiB. None where there is none.

        Raises:
            Exception: as `messages` does.
        """
        return await asyncio.get_running_loop().run_in_executor(self._short, next, messages, None)

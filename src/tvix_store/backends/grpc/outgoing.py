"""Outgoing: the body of a request that is sent as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.envelopes import enveloped
from tvix_store.protocol.status import Status


async def gathered(messages: AsyncIterable[bytes], most: int) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """The messages of a stream, as they are sent, up to the first that goes beyond `most` bytes; and the rest, if there is one."""
    head: list[bytes] = []
    size = 0
    rest = aiter(messages)
    async for message in rest:
        head.append(enveloped(message))
        size += len(head[-1])
        if size > most:
            return b"".join(head), rest
    return b"".join(head), None


class Outgoing:
    """Gives `head`, and then the messages of `rest` as they are sent. aiohttp takes them in a task of its own."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes]) -> None:
        self._head = head
        self._rest = rest
        self._error: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._clock: asyncio.Timeout | None = None
        self._stall = self._end = 0.0

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        self._sending()
        yield self._head
        while (message := await self._next()) is not None:
            self._sending()
            yield enveloped(message)
        self._set(self._end)

    @asynccontextmanager
    async def watched(self, stall: float, end: float) -> AsyncIterator[None]:
        """Let the body send the messages. The server has `stall` seconds to take each, and then `end` seconds to answer.

        Raises:
            Exception: the source of the messages raised it.
            CallError: (DEADLINE_EXCEEDED) the server took too long.
        """
        self._stall, self._end = stall, end
        try:
            async with asyncio.timeout(None) as clock:
                self._clock = clock
                self._sending()
                yield
        except TimeoutError:
            if not clock.expired():
                raise
            raise CallError(
                Status.DEADLINE_EXCEEDED, f"the server took nothing, or gave no answer, within {stall:g} seconds"
            ) from None
        except CallError as failure:
            if self._error is not None:  # why the connection was given up
                raise self._error from failure
            raise
        finally:
            self._clock = None

    async def left(self) -> None:
        """Wait until nobody asks for the next message any more, once the request was given up."""
        await self._idle.wait()

    async def _next(self) -> bytes | None:
        """The next message; None at the end."""
        self._set(None)  # the source may take its time
        self._idle.clear()
        try:
            return await anext(self._rest, None)
        except Exception as error:
            self._error = error
            raise
        finally:
            self._idle.set()

    def _sending(self) -> None:
        self._set(self._stall)

    def _set(self, seconds: float | None) -> None:
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)

"""FaultyBucket: a bucket whose process dies at one of its requests, or takes turns with others at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar

from obstore.store import MemoryStore

from tvix_store.backends.objectstore.bucket import MOST_WHOLE, Bucket, Found, Listed, Version

_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


class Died(BaseException):
    """The process is no more. Nothing that catches errors catches it."""


class Turns:
    """Lets one request after the other be done, of those that several processes have under way: any of them is next."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._waiting: list[asyncio.Future[None]] = []
        self._done: asyncio.Future[None]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        mine = asyncio.get_running_loop().create_future()
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine
        self._done = done
        try:
            yield
        finally:
            done.set_result(None)

    async def give(self) -> None:
        """Give turns, until cancelled."""
        while True:
            for _ in range(10):  # all who have an answer ask their next question
                await asyncio.sleep(0)
            if self._waiting:
                self._waiting.pop(self._random.randrange(len(self._waiting))).set_result(None)
                await asyncio.sleep(0)
                await self._done


class FaultyBucket(Bucket):
    """A bucket in memory.

    dies_at: The number of the request at which the process dies. None for one that lives.
    does_it: Whether that request is done, and only its answer is lost.
    requests: How many there were.
    turns: Who gives turns to it. None where nobody does.
    before_create: What others do before it next creates an object.
    """

    def __init__(
        self, store: MemoryStore, dies_at: int | None = None, *, does_it: bool = False, turns: Turns | None = None
    ) -> None:
        super().__init__(store, "a bucket")
        self.dies_at = dies_at
        self.does_it = does_it
        self.requests = 0
        self.turns = turns
        self.before_create: Callable[[], Awaitable[object]] | None = None

    async def get(self, key: str, most: int = MOST_WHOLE) -> Found | None:
        async with self._asked():
            return await super().get(key, most)

    async def size(self, key: str) -> int | None:
        async with self._asked():
            return await super().size(key)

    async def put(self, key: str, data: bytes | memoryview) -> None:
        async with self._asked():
            await super().put(key, data)

    async def create(self, key: str, data: bytes) -> bool:
        before, self.before_create = self.before_create, None
        if before is not None:
            await before()
        async with self._asked():
            return await super().create(key, data)

    async def replace(self, key: str, data: bytes, version: Version) -> bool:
        async with self._asked():
            return await super().replace(key, data, version)

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._asked():
            await super().delete(keys)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        async with self._asked():
            pages = [page async for page in super().list(prefix, after)]
        for page in pages:
            yield page

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        if _INSIDE.get():  # a request that reads back what it wrote
            yield
            return
        number = self.requests
        self.requests += 1
        if self.dies_at is not None and (number > self.dies_at or (number == self.dies_at and not self.does_it)):
            raise Died
        async with self.turns.turn() if self.turns is not None else nullcontext():
            token = _INSIDE.set(True)
            try:
                yield
            finally:
                _INSIDE.reset(token)
        if number == self.dies_at:
            raise Died

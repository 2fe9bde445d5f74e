"""Database: statements and transactions, made again where that helps, and their failures as errors of the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Self, TypeVar

from tvix_store.backends.postgresql import driver
from tvix_store.backends.postgresql.driver import Connection, Pool
from tvix_store.backends.postgresql.failures import is_conflict, is_lost, misused, translated
from tvix_store.backends.postgresql.settings import Settings
from tvix_store.errors import ClosedError, StoreError, UnauthenticatedError, UnavailableError

T = TypeVar("T")
_WAIT = 30.0
"""Seconds to wait for a connection while all are at work."""
_CONFLICTS = 30
"""How often work that met other work is done again: for some 10 s."""
_LOSSES = 4
"""How often work is done again whose connection was lost: for some 2 s, in which a server can be restarted."""
_LONGEST_PAUSE = 0.5
_CLOSE = 5.0
"""Seconds that work under way has to end when the database is closed."""


class Database:
    """The connections of one process to a database. They belong to the running event loop."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._is_closed = False
        self._was_let_in = False
        self.settings = settings

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """The database. Nothing is asked yet.

        Raises:
            InvalidError: a parameter of the address, or a file that it names, is no good.
        """
        pool = Pool(settings)
        try:
            await pool.open()
            return cls(pool, settings)
        except (driver.MISUSED, OSError, ValueError) as error:
            raise misused(error, settings.name) from None

    async def fetch(self, query: str, *args: object) -> Sequence[Sequence[Any]]:
        """The rows that a statement returns. It may be done twice: once for a connection that was lost, and once more.

        Raises:
            StoreError: as `run`.
        """
        return await self.run(lambda connection: connection.fetch(query, *args))

    async def transaction(self, work: Callable[[Connection], Awaitable[T]], *, twice: bool = True) -> T:
        """The result of `work` in a transaction: all of it is done, or nothing.

        Raises:
            StoreError: as `run`.
        """

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self.run(whole, twice=twice)

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, twice: bool = True, conflicts: Collection[str] = ()) -> T:
        """The result of `work`, which is done again when it met other work, or the connection was lost.

        Without `twice`, it is not done again after a loss: it may have been done. `conflicts` are more SQLSTATEs of work that met
        other work.

        Raises:
            UnavailableError: the server is not there, does not answer, or is too busy.
            ExhaustedError: its disk is full.
            DeniedError: it does not let us.
            RemoteError: it failed in another way.
        """
        met = lost = 0
        while True:
            if self._is_closed:
                raise ClosedError(f"{self.settings.name} is closed")
            try:
                return await self._once(work)
            except driver.ERRORS as error:
                if is_conflict(error) or driver.state_of(error) in conflicts:
                    met += 1
                elif is_lost(error) and twice:
                    lost += 1
                else:
                    raise self._told(error) from None
                if met > _CONFLICTS or lost > _LOSSES:
                    raise self._told(error) from None
            await asyncio.sleep(random.uniform(0.1, 1) * min(_LONGEST_PAUSE, 0.005 * 2**met + 0.1 * 3**lost - 0.1))  # noqa: S311

    def _told(self, error: Exception) -> StoreError:
        """The error for our caller. Once the server has let us in, a password that is wrong is none of a client's business."""
        told = translated(error, self.settings.name)
        return UnavailableError(str(told)) if self._was_let_in and isinstance(told, UnauthenticatedError) else told

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        began = monotonic()
        is_there = False
        try:
            async with self._pool.acquire(_WAIT) as connection:
                is_there = self._was_let_in = True
                return await work(connection)
        except TimeoutError:
            if not is_there and monotonic() - began > _WAIT - 1:
                name, pool = self.settings.name, self.settings.pool
                raise UnavailableError(f"{name}: all {pool} connections are at work; ?pool=NUMBER allows more") from None
            raise

    async def check(self) -> None:
        """As `Offer.check`."""
        await self.run(lambda connection: connection.fetch("SELECT 1"), twice=False)

    async def close(self) -> None:
        """Close all connections: work under way has a few seconds to end."""
        self._is_closed = True
        with suppress(TimeoutError, *driver.ERRORS):
            await self._pool.close(_CLOSE)

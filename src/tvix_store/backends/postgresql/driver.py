"""The driver: the little of asyncpg that is used here, with types. Nothing else imports it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import asyncpg  # type: ignore[import-untyped] # it ships no types

from tvix_store.backends.postgresql.settings import Settings

_CONNECT = 10.0
"""Seconds in which a server must take a connection."""
_LATER = 5.0
"""Seconds that the server has to say that a statement has taken too long. Then the connection counts as dead."""
_IDLE = 60_000
"""Milliseconds after which the server ends a transaction in which this process does nothing. It may be stopped, and holds locks."""
_KEEPALIVES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""Seconds until a quiet connection is probed, seconds between probes, and how many may stay without an answer."""

ERRORS: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises. A TimeoutError and an error of TLS are an OSError."""
CONFUSED = asyncpg.InternalClientError
"""Raised where a server ends a connection at the moment at which the driver begins to ask something."""
MISUSED = asyncpg.ClientConfigurationError
"""Raised for parameters of an address that the driver does not understand."""


class Connection(Protocol):
    """A connection, or one of a pool."""

    async def fetch(self, query: str, *args: object) -> Sequence[Sequence[Any]]: ...

    async def execute(self, query: str, *args: object) -> str: ...

    def transaction(self) -> AbstractAsyncContextManager[object]: ...


class _Connection(asyncpg.Connection):  # type: ignore[misc] # it ships no types
    """A connection that notices a dead server, and costs no round trip when it is given back: nothing here changes a session."""

    __slots__ = ()

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        plug = transport.get_extra_info("socket")
        if plug is not None and plug.family != socket.AF_UNIX:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVES:
                plug.setsockopt(socket.IPPROTO_TCP, option, value)

    def get_reset_query(self) -> str:
        return ""


class Pool:
    """Connections that are made when they are needed, and closed after five minutes without work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_closed = False
        self._pool: Any = None

    async def open(self) -> None:
        """Get ready. Nothing is connected yet.

        Raises:
            MISUSED, OSError, ValueError: a parameter, or a file that it names, is no good.
        """
        settings = self._settings
        self._pool = await asyncpg.create_pool(
            settings.dsn,
            min_size=0,
            max_size=settings.pool,
            timeout=_CONNECT,
            command_timeout=settings.timeout + _LATER,
            connection_class=_Connection,
            init=self._begin,
            server_settings={
                "application_name": "tvix-store",
                "search_path": f'"{settings.schema}"',
                "statement_timeout": str(round(settings.timeout * 1000)),
                "idle_in_transaction_session_timeout": str(_IDLE),
                "default_transaction_isolation": settings.isolation,
            },
        )

    def acquire(self, wait: float) -> AbstractAsyncContextManager[Connection]:
        """A connection, for which to wait up to `wait` seconds."""
        return cast(AbstractAsyncContextManager[Connection], self._pool.acquire(timeout=wait))

    async def close(self, wait: float) -> None:
        """Close all connections. Work has `wait` seconds to end, and none when this is cancelled; then its connections end."""
        self._is_closed = True
        await asyncio.wait_for(self._pool.close(), wait)

    async def _begin(self, connection: Connection) -> None:
        await prepare(connection)
        if self._is_closed:  # while it was made: nobody would close it
            raise asyncpg.InterfaceError("the connection is closed")


async def prepare(connection: Any) -> None:
    """Make a new connection ready: what is not PostgreSQL itself has transactions as if one ran after the other.

    Its row locks keep less, or its "read committed" is another level: see docs/design/postgresql.md.
    """
    told = connection.get_settings()
    if hasattr(told, "crdb_version") or "-YB-" in told.server_version:
        await connection.execute("SET default_transaction_isolation = 'serializable'")


def state_of(error: Exception) -> str:
    """The SQLSTATE of an error, five characters; empty for one that has none."""
    return str(getattr(error, "sqlstate", None) or "")

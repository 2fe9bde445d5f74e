"""Serving: an application on listeners, by an engine that is exchanged when the certificate changes."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tvix_store.asgi import App
from tvix_store.errors import InvalidError
from tvix_store.server.engine import Engine
from tvix_store.server.hang_up import hang_up_all
from tvix_store.server.reloading import Reloadable
from tvix_store.server.settings import ServerConfig

_DEAF_AFTER = 0.1
"""Seconds after which the engine has heard that it is to stop. A listener that is shut down before makes it drop running calls."""


@asynccontextmanager
async def serving(
    app: App, sockets: Sequence[socket.socket], config: ServerConfig, is_deaf: Callable[[], None] = lambda: None
) -> AsyncIterator[list[Reloadable]]:
    """Serve `app` on `sockets` while the body runs; at its end finish the running calls, for at most `config.grace` seconds.

    `is_deaf` is called in between, when no more connections are taken. The body gets what can be reloaded: the certificate, if
    there is one.

    Raises:
        InvalidError: the engine does not take the settings, such as the TLS files.
    """
    engines = _Engines(app, sockets, config)
    await engines.start()
    files = config.tls.files if config.tls else ()
    try:
        yield [Reloadable("TLS certificate", files, engines.renew)] if files else []
    finally:
        await engines.end(is_deaf)


class _Engines:
    """The engine that takes connections, and the retired ones before it."""

    def __init__(self, app: App, sockets: Sequence[socket.socket], config: ServerConfig) -> None:
        self._app = app
        self._sockets = sockets
        self._config = config
        self._engine: Engine
        self._retired: dict[asyncio.Task[None], Engine] = {}
        self._in_force: bytes | None = None
        """The digest of the TLS files that the engine has read; None where they changed meanwhile."""

    async def start(self) -> None:
        before = self._digest()
        self._engine = await Engine.start(self._app, self._sockets, self._config)
        self._in_force = before if before == self._digest() else None

    async def renew(self) -> bool:
        """Take the files as they are now; whether they were others. If they are refused, the engine with the old ones goes on.

        Raises:
            InvalidError: a file cannot be read, or is not what it should be.
        """
        if self._digest() == self._in_force:
            return False
        old = self._engine
        await self.start()
        retiring = asyncio.create_task(old.retire())
        self._retired[retiring] = old
        retiring.add_done_callback(self._retired.pop)
        return True

    async def end(self, is_deaf: Callable[[], None]) -> None:
        engines = [self._engine, *self._retired.values()]
        for retiring in list(self._retired):
            retiring.cancel()
        for engine in engines:
            engine.shut_down()
        running = {engine.running for engine in engines}
        await asyncio.wait(running, timeout=_DEAF_AFTER)
        is_deaf()
        if self._config.tls:
            # Engines with TLS have more time, since they may have been retired.
            _, late = await asyncio.wait(running, timeout=self._config.grace)
            if late:
                hang_up_all(self._sockets)
        await asyncio.gather(*running)

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for file in self._config.tls.files if self._config.tls else ():
            try:
                content = file.read_bytes()
            except OSError as error:
                raise InvalidError(f"cannot read {file}: {error.strerror}") from None
            digest.update(b"%d " % len(content) + content)
        return digest.digest()

"""Engine: one run of `h2corn` on our listeners, with one certificate.

The engine (h2corn 2.0) reads its certificate once. For another certificate, a second engine is started on the same listeners, and
the first one is retired. A retired engine takes no more connections, and serves those that it has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from h2corn import Config, Server, _lib

from tvix_store.asgi import App, Event, Receive, Send, is_http1
from tvix_store.errors import InvalidError
from tvix_store.server.settings import ServerConfig, TlsFiles

_log = logging.getLogger(__name__)
_SETTLED = 10.0
"""Seconds after which a retired engine says over HTTP/2 that it goes away. TLS handshakes that had begun are over then (the engine
allows 5 s), and clients over HTTP/1.1 have left: each answer asks them to."""
_FINISHED = 24 * 3600.0
"""Seconds that the calls of a retired engine get. A certificate that is changed is no reason to cut a download short."""


def _say_nothing(config: Config, tls: object) -> None:
    pass


_lib.emit_banner = _say_nothing  # the engine greets on stderr at each start, and has no option against that


class Engine:
    """An engine that serves. `running` is done when it has ended.

    Use `start` to make one.
    """

    def __init__(self, app: App, sockets: Sequence[socket.socket], config: ServerConfig) -> None:
        self._app = app
        # Without TLS there is only one engine, and nothing to ask of a request.
        self._server = Server(self._serve if config.tls else app, _settings(sockets, config))
        self._sockets = sockets
        self._waits: set[int] = set()
        """The engine's own descriptors of the listeners."""
        self._is_retired = False
        self.running = asyncio.create_task(self._server.serve())

    @classmethod
    async def start(cls, app: App, sockets: Sequence[socket.socket], config: ServerConfig) -> Engine:
        """Serve `app` on `sockets`.

        Raises:
            InvalidError: the engine does not take the settings, such as the TLS files.
        """
        before = {fd for _, fd in _waiting(sockets)}
        try:
            engine = cls(app, sockets, config)
        except ValueError as error:
            raise _refused(error, config) from None
        try:
            await engine._server.wait_started()
        except (ValueError, OSError) as error:
            await asyncio.wait({engine.running})
            engine.running.exception()
            raise _refused(error, config) from None
        if config.tls:
            engine._waits = {fd for _, fd in _waiting(sockets)} - before
        return engine

    async def retire(self) -> None:
        """Take no more connections, and end when those that there are have ended. Another engine must have started before.

        A shutdown at once would drop the connections whose handshake is under way, and clients do not try again what fails on a
        new connection. So the listeners are first taken from the engine, and it is shut down later.
        """
        self._is_retired = True
        for epoll, fd in _waiting(self._sockets):
            if fd in self._waits:
                _stop_waiting(epoll, fd)
        await asyncio.sleep(_SETTLED)
        self.shut_down()
        await asyncio.wait({self.running})
        if (error := self.running.exception()) is not None:
            _log.error("connections with an old certificate did not end well: %s", error)

    def shut_down(self) -> None:
        """Begin to end: take no more connections, and finish the running calls."""
        self._server.shutdown()

    def _serve(self, scope: Event, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        return self._app(scope, receive, _closing(send) if self._is_retired and is_http1(scope) else send)


def _closing(send: Send) -> Send:
    """`send`, with a header field that ends the connection behind the answer."""

    async def closing(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event.get("headers", ()), (b"connection", b"close")]}
        await send(event)

    return closing


def _waiting(sockets: Sequence[socket.socket]) -> list[tuple[int, int]]:
    """The epoll descriptors of this process that wait for connections of `sockets`, each with its descriptor of the listener.

    Source: proc_pid_fdinfo(5), `tfd`.
    """
    inodes = {os.fstat(each.fileno()).st_ino for each in sockets}
    found: list[tuple[int, int]] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/self/fdinfo/{name}") as info:
                watched = [int(line.split()[1]) for line in info if line.startswith("tfd:")]
            found += [(int(name), fd) for fd in watched if os.fstat(fd).st_ino in inodes]
    return found


def _stop_waiting(epoll: int, fd: int) -> None:
    # The engine's clones of its epoll descriptor are the same epoll.
    with select.epoll.fromfd(os.dup(epoll)) as waiting, suppress(FileNotFoundError):
        waiting.unregister(fd)


def _settings(sockets: Sequence[socket.socket], config: ServerConfig) -> Config:
    tls: TlsFiles | None = config.tls
    return Config(
        bind=tuple(f"fd://{each.fileno()}" for each in sockets),
        lifespan="off",  # the store is opened before the engine starts, and closed after it has ended
        grpc=True,
        runtime_threads=1,  # as there is a worker a core; see docs/design/rpc.md
        # What the engine takes in ahead of a handler. With its defaults (8 MiB each) 16 uploads held 270 MB; they are no faster.
        h2_initial_stream_window_size=1 << 20,
        h2_initial_connection_window_size=2 << 20,
        access_log=False,
        date_header=False,
        max_concurrent_streams=64,
        h2_timeout_response_stall=config.send_timeout,
        h2_timeout_write=config.send_timeout,
        max_request_body_size=0,
        # The engine only cuts the connection; the cache, which comes first, says why.
        timeout_request_body_idle=max(60.0, config.cache.body_timeout + 30),
        timeout_graceful_shutdown=_FINISHED if tls else config.grace,
        certfile=tls.certificate if tls else None,
        keyfile=tls.key if tls else None,
        ca_certs=tls.client_ca if tls else None,
        cert_reqs=("required" if tls.needs_client else "optional") if tls and tls.client_ca else "none",
    )


def _refused(error: Exception, config: ServerConfig) -> InvalidError:
    """The error for settings that the engine does not take: nearly always, these are the files of TLS."""
    files = f" TLS with {' and '.join(map(str, config.tls.files))}" if config.tls else ""
    words = str(error).replace("certfile", "the file of the certificate").replace("keyfile", "the file of the key")
    return InvalidError(f"cannot serve{files}: {words}")

"""One worker: a store, served on listeners that somebody else opened."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import uvloop

from tvix_store.asgi import App
from tvix_store.concurrency.allocator import keep_freed_memory
from tvix_store.errors import StoreError
from tvix_store.http.app import BinaryCache
from tvix_store.rpc.asgi import RpcApp
from tvix_store.rpc.services import serve_store
from tvix_store.server.browser_guard import BrowserGuard
from tvix_store.server.forwarded import Forwarded
from tvix_store.server.giving_back import giving_back
from tvix_store.server.hang_up import HangUp
from tvix_store.server.limits import ClientLimits
from tvix_store.server.listeners import host_names
from tvix_store.server.reloading import reloading
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig
from tvix_store.services import Store
from tvix_store.traffic import Traffic

OpenStore: TypeAlias = Callable[[], Coroutine[Any, Any, Store]]
"""Opens the store of one worker, in the worker."""


def work(
    config: ServerConfig, open_store: OpenStore, sockets: Sequence[socket.socket], lifeline: int, tell: Callable[[str], None]
) -> int:
    """Serve until SIGTERM comes or the other end of `lifeline` is closed. SIGHUP reloads what can be reloaded.

    `tell` hears `opening` with each message that is logged while the store is opened; then `ready`, or the error's kind and
    message; `deaf` when no more connections are taken; and `info` or `error` with a line for the log, which all workers say alike.

    Returns the exit code of the process.
    """

    async def main() -> None:
        with _logs_told(tell):
            opened = await open_store()
        async with opened as store:
            traffic = Traffic(config.memory, config.send_timeout, HangUp())
            cache = BinaryCache(store, config.cache, traffic)
            app, stop = serve_store(store, max_message=config.max_message, fallback=cache, traffic=traffic)
            ending = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, ending.set)
            loop.add_reader(lifeline, ending.set)
            names = (*host_names(config.listen), *config.allow_hosts)
            # With TLS, browsers themselves see by the certificate that a name is not ours.
            guarded = BrowserGuard(_limited(app, config, traffic), [] if config.tls else sockets, names, config.allow_origins)
            async with (
                serving(guarded, sockets, config, lambda: tell("deaf")) as reloadable,
                reloading(reloadable, tell) as reload,
                giving_back(traffic),
            ):
                loop.add_signal_handler(signal.SIGHUP, reload)
                tell("ready")
                await ending.wait()
                loop.remove_reader(lifeline)
                stop()

    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except StoreError as error:
        tell(f"{type(error).__name__} {error}")
        return 1
    return 0


def _limited(app: RpcApp, config: ServerConfig, traffic: Traffic) -> App:
    """`app` behind the layers about clients that the operator has asked for. A layer that has nothing to do is not there."""
    behind: App = app
    if config.limits.are_set:
        writing = {path for path, method in app.methods.items() if method.takes.writes}
        behind = ClientLimits(behind, config.limits, writing, traffic.hang_up)
    return Forwarded(behind, config.trusted_proxies) if config.trusted_proxies else behind


@contextmanager
def _logs_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Also tell log messages of that time."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(BlockingIOError):  # the supervisor is slow to read
                tell(f"opening {record.getMessage()}")

    handler = Handler(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)

"""One worker: the engine `h2corn`, with our settings, on listeners that somebody else opened."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import uvloop
from h2corn import Config, Server

from tvix_store.asgi import App
from tvix_store.concurrency.allocator import keep_freed_memory
from tvix_store.errors import InvalidError, StoreError
from tvix_store.http.app import BinaryCache
from tvix_store.observe.access_log import AccessLog
from tvix_store.observe.metrics import Metrics
from tvix_store.observe.probes import Probes
from tvix_store.observe.requests import ObservedRequests
from tvix_store.observe.store_gauges import StoreGauges
from tvix_store.rpc.services import serve_store
from tvix_store.server.browser_guard import BrowserGuard
from tvix_store.server.giving_back import giving_back
from tvix_store.server.hang_up import hang_up
from tvix_store.server.listeners import host_names
from tvix_store.server.settings import ServerConfig
from tvix_store.services import Store
from tvix_store.telemetry import meters
from tvix_store.telemetry.shared import SharedRows
from tvix_store.traffic import Traffic

_DEAF_AFTER = 0.1
"""Seconds after which the engine has heard that it is to stop. A listener that is shut down before makes it drop running calls."""
OpenStore: TypeAlias = Callable[[], Coroutine[Any, Any, Store]]
"""Opens the store of one worker, in the worker."""


def work(
    config: ServerConfig,
    open_store: OpenStore,
    sockets: Sequence[socket.socket],
    lifeline: int,
    tell: Callable[[str], None],
    counts: SharedRows,
    row: int,
) -> int:
    """Serve until SIGTERM comes or the other end of `lifeline` is closed. Count in the row `row` of `counts`.

    `tell` hears `opening` with each message that is logged while the store is opened; then `ready`, or the error's kind and
    message; and `deaf` when no more connections are taken.

    Returns the exit code of the process.
    """

    async def main() -> None:
        with _logs_told(tell):
            opened = await open_store()
        async with opened as store:
            traffic = Traffic(config.memory, config.send_timeout, hang_up)
            cache = BinaryCache(store, config.cache, traffic)
            app, health = serve_store(
                store,
                max_message=config.max_message,
                fallback=cache,
                traffic=traffic,
                private_places=config.cache.private_places,
            )
            ending = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, ending.set)
            loop.add_reader(lifeline, ending.set)
            metrics = Metrics(counts)
            gauges = StoreGauges(store.statistics, config.directories, metrics)
            probed = Probes(app, metrics, gauges, health.is_serving)
            names = (*host_names(config.listen), *config.allow_hosts)
            # With TLS, browsers themselves see by the certificate that a name is not ours.
            guarded = BrowserGuard(probed, [] if config.tls else sockets, names, config.allow_origins)
            log = AccessLog(sys.stderr, config.access_log) if config.access_log else None
            with _traced(guarded, wanted=config.traces) as traced:
                observed = ObservedRequests(traced, app.methods, log)
                async with aclosing(gauges), serving(observed, sockets, config, lambda: tell("deaf")), giving_back(traffic):
                    meters.WORKER_STARTS.of().add()
                    meters.WORKERS.of().set(1)
                    tell("ready")
                    await ending.wait()
                    loop.remove_reader(lifeline)
                    health.stop()

    meters.count_in(counts.row(row))
    keep_freed_memory()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except StoreError as error:
        tell(f"{type(error).__name__} {error}")
        return 1
    return 0


@contextmanager
def _traced(app: App, *, wanted: bool) -> Iterator[App]:
    """`app`, with a span for each request where that is wanted. The last spans are sent at the end."""
    if not wanted:
        yield app
        return
    from tvix_store.observe.traces import TracedRequests

    traced = TracedRequests(app)
    try:
        yield traced
    finally:
        traced.close()


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


@asynccontextmanager
async def serving(
    app: App, sockets: Sequence[socket.socket], config: ServerConfig, is_deaf: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Serve `app` on `sockets` while the body runs; at its end finish the running calls, for at most `config.grace` seconds.

    `is_deaf` is called in between, when no more connections are taken.

    Raises:
        InvalidError: the engine does not take the settings, such as the TLS files.
    """
    server = Server(app, _engine(sockets, config))
    with _silent_stderr():  # the engine greets there, once a worker, and cannot be told not to
        running = asyncio.create_task(server.serve())
        try:
            await server.wait_started()
        except (ValueError, OSError) as error:
            await asyncio.wait({running})
            running.exception()
            raise InvalidError(f"cannot serve: {error}") from None
    try:
        yield
    finally:
        server.shutdown()
        await asyncio.wait({running}, timeout=_DEAF_AFTER)
        is_deaf()
        await running


def _engine(sockets: Sequence[socket.socket], config: ServerConfig) -> Config:
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
        timeout_graceful_shutdown=config.grace,
        certfile=config.tls.certificate if config.tls else None,
        keyfile=config.tls.key if config.tls else None,
    )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)

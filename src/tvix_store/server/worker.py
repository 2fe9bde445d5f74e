"""One worker: a store, served on listeners that somebody else opened."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress

import uvloop

from tvix_store.concurrency.allocator import keep_freed_memory
from tvix_store.errors import StoreError
from tvix_store.server.application import Application
from tvix_store.server.giving_back import giving_back
from tvix_store.server.hang_up import HangUp
from tvix_store.server.reloading import reloading
from tvix_store.server.serving import serving
from tvix_store.server.settings import OpenStore, ServerConfig
from tvix_store.server.systemd import saying_alive, saying_it_opens
from tvix_store.telemetry import meters
from tvix_store.telemetry.shared import SharedRows
from tvix_store.traffic import Traffic


def work(
    config: ServerConfig,
    open_store: OpenStore,
    sockets: Sequence[socket.socket],
    lifeline: int,
    tell: Callable[[str], None],
    counts: SharedRows,
    row: int,
    watchdog: float | None,
) -> int:
    """Serve until SIGTERM comes or the other end of `lifeline` is closed. SIGHUP reloads what can be reloaded.

    It counts in the row `row` of `counts`.

    `tell` hears `opening` with each message that is logged while the store is opened; then `ready`, or the error's kind and
    message; `alive`, four times in `watchdog` seconds; `deaf` when no more connections are taken; and `info` or `error` with a
    line for the log, which all workers say alike.

    Returns the exit code of the process.
    """

    async def main() -> None:
        with _logs_told(tell), saying_it_opens(tell, watchdog):
            opened = await open_store()
        async with opened as store, AsyncExitStack() as stores:
            traffic = Traffic(config.memory, config.send_timeout, HangUp())
            application = Application(config, traffic, counts)
            app = await application.open(store, sockets, stores)
            ending = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, ending.set)
            loop.add_reader(lifeline, ending.set)
            async with (
                serving(app, sockets, config, lambda: tell("deaf")) as reloadable,
                reloading(reloadable, tell) as reload,
                giving_back(traffic),
                saying_alive(tell, watchdog),
            ):
                loop.add_signal_handler(signal.SIGHUP, reload)
                meters.WORKER_STARTS.of().add()
                meters.WORKERS.of().set(1)
                tell("ready")
                await ending.wait()
                loop.remove_reader(lifeline)
                application.stop()

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

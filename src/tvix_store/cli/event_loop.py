"""Running a command's coroutine. A signal ends it in order: unfinished files are removed, and no traceback is shown."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine
from typing import Any

from tvix_store.cli.exit_codes import after_signal
from tvix_store.concurrency.allocator import keep_freed_memory

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end. A first signal cancels it and ends the program, a second one ends the program at once."""
    keep_freed_memory()
    gc.freeze()  # what was imported stays
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    asyncio.run(_interruptible(main))
    for number, handler in handlers.items():
        signal.signal(number, handler)


async def _interruptible(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    received: list[int] = []

    def stop(number: int) -> None:
        if received:
            os._exit(after_signal(number))
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup, and shells in the background, want it
            loop.add_signal_handler(number, stop, number)
    try:
        await task
    finally:
        if received:
            # Not by sys.exit: a thread that writes into a full pipe would be waited for, perhaps for ever.
            os._exit(after_signal(received[0]))

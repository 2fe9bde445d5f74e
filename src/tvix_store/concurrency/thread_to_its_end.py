"""thread_to_its_end: work in a thread, which keeps its caller's place until it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def thread_to_its_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `call`, made in a thread. A thread cannot be stopped, so a cancelled caller waits for its end.

    So a lock around this holds as long as the work: callers that come and leave do not get more threads and memory than others.
    And a caller may then close the file that the thread works on.
    """
    # Not asyncio.to_thread: that needs a task, and the end of the event loop cancels all tasks, this one too.
    running = asyncio.get_running_loop().run_in_executor(None, partial(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    finally:
        if not running.done():
            await asyncio.wait((running,))

"""LoopThread: an event loop in a thread of its own, on which calls from other threads are made and waited for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from tvix_store.errors import ClosedError

T = TypeVar("T")
_END: Any = object()
"""Stands behind the last item of an iterator."""
_LOOK = 5.0
"""Seconds after which a waiting thread looks whether the loop is still there."""
Jobs: TypeAlias = "SimpleQueue[Callable[[], None] | None]"
"""What a waiting thread is asked to do meanwhile. None ends its waiting."""


class LoopThread:
    """The event loop of all synchronous stores of this process. It runs while one of them is open.

    So it does not matter whether the calling thread runs an event loop too, as a notebook does.
    """

    _lock: ClassVar = threading.Lock()
    _running: ClassVar[LoopThread | None] = None

    def __init__(self) -> None:
        self.users = 0
        self.process = os.getpid()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="tvix-store", daemon=True)
        self._thread.start()

    @classmethod
    def enter(cls) -> LoopThread:
        """The running one, or a new one, until `leave` was called as often."""
        with cls._lock:
            running = cls._running
            # The thread of a parent process does not run in a fork of it.
            if running is None or running.process != os.getpid():
                running = cls._running = cls()
            running.users += 1
            return running

    def leave(self) -> None:
        """End with the last user."""
        with self._lock:
            self.users -= 1
            if self.users:
                return
            LoopThread._running = None
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _work(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stopped.wait()

    def run(self, coroutine: Coroutine[Any, Any, T], jobs: Jobs | None = None) -> T:
        """Run `coroutine` on the loop, and wait for its result. Meanwhile this thread does the `jobs`.

        An interrupt of this thread (Ctrl-C) cancels the coroutine and is raised once that has ended; a second one, at once.

        Raises:
            ClosedError: the last store was closed.
            RuntimeError: this is the thread of the loop, such as in a callback.
        """
        waiting = SimpleQueue[Callable[[], None] | None]() if jobs is None else jobs
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(coroutine, context=context))
            tasks[0].add_done_callback(lambda _: waiting.put(None))

        def cancel() -> None:
            tasks[0].cancel()  # not before it is there

        context = copy_context()
        try:
            self._check_caller()
            self._loop.call_soon_threadsafe(start)
        except BaseException:
            coroutine.close()
            raise
        try:
            while (job := self._next(waiting)) is not None:
                job()
        except BaseException:
            with suppress(RuntimeError, ClosedError):  # where the loop has just ended
                self._loop.call_soon_threadsafe(cancel)
                while self._next(waiting) is not None:
                    pass
            if not tasks:
                coroutine.close()  # it never began
            raise
        try:
            return tasks[0].result()
        except asyncio.CancelledError:
            raise _closed() from None

    def _next(self, jobs: Jobs) -> Callable[[], None] | None:
        while True:
            try:
                return jobs.get(timeout=_LOOK)
            except Empty:
                if not self._thread.is_alive():  # another thread has closed the last store before the call began
                    raise _closed() from None

    def iterate(self, make: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
        """The items of the stream that `make` makes, one by one. The stream ends with the generator."""
        stream: AsyncIterator[T] | None = None

        async def step() -> T:
            nonlocal stream
            stream = stream or make()
            return await anext(stream, _END)

        try:
            while (item := self.run(step())) is not _END:
                yield item
        finally:
            if stream is not None:
                self._close(stream)

    def pulled(self, items: Iterable[T], jobs: Jobs) -> AsyncIterator[T]:
        """The items as a stream for `run`. Each is taken in the thread that waits there: files and cursors may belong to it."""
        return _Pulled(iter(items), self._loop, jobs)

    def _close(self, stream: AsyncIterator[Any]) -> None:
        close = getattr(stream, "aclose", None)
        if close is None or self._loop.is_closed() or self.process != os.getpid():
            return
        if threading.current_thread() is self._thread:  # the generator was thrown away, and this thread has found it
            self._loop.create_task(close())
        else:
            with suppress(ClosedError):  # the loop ends streams with itself
                self.run(close())

    def _check_caller(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a synchronous store is used in one of its own callbacks: use it in another thread")
        if self._stopped.is_set() or self.process != os.getpid():
            raise _closed()


class _Pulled(Generic[T]):
    """Asks the waiting thread for one item after the other."""

    def __init__(self, items: Iterable[T], loop: asyncio.AbstractEventLoop, jobs: Jobs) -> None:
        self._items = iter(items)
        self._loop = loop
        self._jobs = jobs

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(partial(self._take, answer))
        item = await answer
        if item is _END:
            raise StopAsyncIteration
        return item

    def _take(self, answer: asyncio.Future[T]) -> None:
        """In the waiting thread."""
        try:
            item = next(self._items, _END)
        except Exception as error:  # noqa: BLE001 - it goes through the call, to who has called
            self._loop.call_soon_threadsafe(_tell, answer, error)
        else:
            self._loop.call_soon_threadsafe(_tell, answer, item)


def _closed() -> ClosedError:
    return ClosedError("the store is closed: use it inside of its `with` block, or before its close()")


def _tell(answer: asyncio.Future[Any], outcome: object) -> None:
    if answer.done():  # the call was cancelled meanwhile
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)

"""WorkerPool: forked processes that share the work of one command, each with the store opened for itself.

One process runs Python on one core. A thread that makes many short system calls waits for the interpreter's lock after each call
while other threads compute. So writing a tree of 15,000 files kept only 1.1 of 2 cores busy. A worker of the pool does one task
after the other, in one thread. A task is a function of a module. Its arguments and its result are pickled, so they should be small.

If a worker is killed, only its open tasks are lost, and their callers get UnavailableError. If the process that has forked the
workers goes away for any reason, the workers finish their current tasks, close the store and end.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from tvix_store.errors import UnavailableError
from tvix_store.services.store import Store

P = ParamSpec("P")
T = TypeVar("T")

OpenStore = Callable[[], Awaitable[Store]]

_LENGTH = struct.Struct("<I")
_Failure = tuple[type[Exception], tuple[object, ...], dict[str, object]]
"""An exception's class, arguments and attributes: the parts of it that can be sent."""


class WorkerPool:
    """`size` processes, forked when this is made: before the process has other threads, and before it opens the store.

    `async with` ends them. Each calls `open_store` when it is first asked for something. Where the system does not let us have that
    many processes, there are fewer, or none.
    """

    def __init__(self, open_store: OpenStore, size: int) -> None:
        self._members: list[_Member] = []
        with suppress(OSError):
            for _ in range(size):
                self._members.append(_fork(open_store, [worker.connection for worker in self._members]))

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._members)

    async def __aenter__(self) -> Self:
        for worker in self._members:
            await worker.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._members:
            worker.dismiss()
        for worker in self._members:
            await worker.ended()

    async def run(self, work: Callable[Concatenate[Store, P], Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have `work(store, …)` awaited by the worker that has the least to do, after its earlier tasks.

        A caller that is cancelled does not stop it.

        Raises:
            Exception: the error of `work`.
            UnavailableError: the worker is gone.
        """
        result: T = await min(self._members, key=_Member.to_do).call((work, args, kwargs))
        return result


class _Member:
    """A forked process, as seen by the one that has forked it."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.connection = connection
        self._pid = pid
        self._asked: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()
        """For answers, which come in the order of the questions."""
        self._waiting = 0
        self._is_gone = False

    def to_do(self) -> int:
        """How many calls it has not answered."""
        return self._waiting

    async def start(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self.connection)
        self._receiving = asyncio.create_task(self._receive())

    async def call(self, request: object) -> Any:
        if self._is_gone:
            raise _gone()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(answer)
        self._waiting += 1
        _send(self._writer, request)
        return await answer

    def dismiss(self) -> None:
        """Let it end when it has done its tasks."""
        with suppress(OSError):
            self._writer.write_eof()

    async def ended(self) -> None:
        await self._receiving
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        await asyncio.to_thread(os.waitpid, self._pid, 0)

    async def _receive(self) -> None:
        async for result, failure in _messages(self._reader):
            self._answer(result, None if failure is None else _made(failure))
        self._is_gone = True
        while not self._asked.empty():
            self._answer(None, _gone())

    def _answer(self, result: object, error: Exception | None) -> None:
        self._waiting -= 1
        answer = self._asked.get_nowait()
        if answer.done():  # who asked was cancelled
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


def _gone() -> UnavailableError:
    return UnavailableError("a process that shared the work was ended from outside; try again")


def _fork(open_store: OpenStore, others: list[socket.socket]) -> _Member:
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        # With a copy of the parent's end of a connection, its own or another worker's, nobody would see that the parent is gone.
        for connection in (ours, *others):
            connection.close()
        _be_member(open_store, theirs)
    theirs.close()
    return _Member(pid, ours)


def _be_member(open_store: OpenStore, connection: socket.socket) -> NoReturn:
    """Serve the parent, and leave without the parent's own cleanup."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)  # the parent's, which would hear of our signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal sends them to all of us; the parent ends, and we with it
        asyncio.run(_serve(open_store, connection))
        code = 0
    finally:
        os._exit(code)


async def _serve(open_store: OpenStore, connection: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    store: Store | None = None
    try:
        async for work, args, kwargs in _messages(reader):
            failure: _Failure | None = None
            result = None
            try:
                store = store or await open_store()
                result = await work(store, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
                failure = _sendable(error)
            _send(writer, (result, failure))
    finally:
        if store is not None:
            await store.close()


def _sendable(error: Exception) -> _Failure:
    failure = type(error), error.args, vars(error)
    try:
        pickle.dumps(failure)
    except Exception:  # noqa: BLE001 - whatever it is made of
        return RuntimeError, (f"{type(error).__name__}: {error}",), {}
    return failure


def _send(writer: asyncio.StreamWriter, message: object) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(data)) + data)


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """The messages of the other end, until it is gone."""
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            yield pickle.loads(await reader.readexactly(length))  # noqa: S301 - from a process that was forked here


def _made(failure: _Failure) -> Exception:
    kind, args, attributes = failure
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error

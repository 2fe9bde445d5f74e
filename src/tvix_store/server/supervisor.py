"""The process that listens, starts the workers, starts them again when they die, and ends them.

The first worker opens the store before the others are started, since it may have to make much of the store anew. Each line that it
logs meanwhile goes to systemd, which then waits longer.

systemd's watchdog is fed when each worker has said that it is alive. If one of them hangs, systemd starts the daemon anew.

The supervisor runs no event loop and no threads, so it can fork at any time. It sleeps until a signal comes. SIGTERM and SIGINT
end the daemon. SIGCHLD says that a worker has died. SIGUSR1 says that a worker has written news into its pipe. SIGHUP is handed on
to the workers, which reload what can be reloaded; the hangup of the terminal ends the daemon, as it ends other programs.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvix_store.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    DiskDeniedError,
    DiskFullError,
    ExhaustedError,
    IncompleteError,
    InvalidError,
    NoStoreError,
    RemoteError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from tvix_store.observe.logs import SAID
from tvix_store.observe.start_lines import ending_line
from tvix_store.server.listeners import listening, name, stop_listening
from tvix_store.server.settings import OpenStore, ServerConfig
from tvix_store.server.systemd import leave_to_supervisor, notify, watchdog_time
from tvix_store.server.terminal import Terminal
from tvix_store.server.worker import work
from tvix_store.telemetry import meters
from tvix_store.telemetry.shared import SharedRows

_log = logging.getLogger(__name__)
_said = logging.getLogger(SAID)
_END = (signal.SIGTERM, signal.SIGINT)
_OF_WORKERS = (signal.SIGCHLD, signal.SIGUSR1)
_SIGNALS = (*_END, *_OF_WORKERS, signal.SIGHUP)
_PAUSE = 1.0
"""Seconds before a worker that died is started again."""
_RESERVE = 5.0
"""Seconds beyond `grace` that a worker gets to close its store."""
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
_ALIKE = 2.0
"""Seconds within which the same line by another worker is not logged again."""
_OPENING_SILENT = 60
"""Seconds that a worker which opens the store may be silent, for systemd."""
_SIGNS_OF_LIFE = ("opening", "ready", "alive")
_LEVELS = {"info": logging.INFO, "error": logging.ERROR}
_ERRORS = {
    kind.__name__: kind
    for kind in (
        ConflictError,
        CorruptError,
        DeniedError,
        DiskDeniedError,
        DiskFullError,
        ExhaustedError,
        IncompleteError,
        InvalidError,
        NoStoreError,
        RemoteError,
        UnauthenticatedError,
        UnavailableError,
        UnsupportedError,
    )
}
"""Those that a message alone makes again, after a worker told them."""


Greeting: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
"""Makes the lines that the server says behind READY, from the addresses in that line."""


def serve(config: ServerConfig, open_store: OpenStore, greeting: Greeting | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish the running calls. To be called in the main thread, with no other threads running.

    Each worker opens the store for itself, after it was forked. When all serve, the line `READY <address> …` is written to stderr.
    Then follow the lines of `greeting`. Without one, the server says nothing of itself, also not when it ends.

    Raises:
        InvalidError: an address is malformed, or needs `allow_remote`.
        UnavailableError: an address is taken, or a worker died before it served.
        StoreError: a worker could not open the store; of the kind that `open_store` raised.
    """
    with listening(config.listen, allow_remote=config.allow_remote) as sockets:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            _Supervisor(config, open_store, sockets, greeting).run()
        finally:
            # The last news of a worker that was killed meanwhile. Let through, SIGUSR1 would kill this process.
            while signal.sigtimedwait(_OF_WORKERS, 0) is not None:
                pass
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Supervisor:
    def __init__(
        self, config: ServerConfig, open_store: OpenStore, sockets: Sequence[socket.socket], greeting: Greeting | None
    ) -> None:
        self._config = config
        self._open_store = open_store
        self._sockets = sockets
        self._greeting = greeting
        self._counts = SharedRows(config.workers)
        self._pid = os.getpid()
        self._lifeline, self._lifeline_end = os.pipe()  # readable when this process closes it, or dies
        self._news, self._news_end = os.pipe2(os.O_NONBLOCK)
        self._workers: dict[int, int] = {}
        """The row of each worker in `counts`, by its process id. Who takes the place of a dead one gets its row."""
        self._ready: set[int] = set()
        self._watchdog = watchdog_time()
        self._alive: set[int] = set()
        """The workers that have said so since systemd heard of it last."""
        self._serving = False
        self._has_status = False
        self._had_fault = False
        """Whether a worker was killed by a fault, and none could open the store since."""
        self._terminal = Terminal()
        self._said: dict[str, float] = {}
        """Lines that workers say alike, and when each was logged."""
        self._ends_all_by: float | None = None
        """When all workers must have ended, to be started anew."""

    def run(self) -> None:
        try:
            # The workers share the pages of what is here now, until they write to them. A collection writes to each object.
            gc.collect()
            gc.freeze()
            self._start()
            while (cause := self._next_signal()) not in _END:
                self._read_news()
                if cause == signal.SIGCHLD:
                    self._replace_the_dead()
                elif cause == signal.SIGHUP:
                    if self._terminal.has_hung_up():
                        break
                    if self._config.reread is not None:
                        self._config.reread()
                    self._signal_all(signal.SIGHUP)
                elif cause is None:
                    self._signal_all(signal.SIGKILL)
            if self._greeting is not None:
                _said.info("%s", ending_line(self._running_calls(), self._config.grace))
        finally:
            self._end()

    def _running_calls(self) -> int:
        return round(sum(row.get(meters.IN_FLIGHT.name, 0.0) for row in self._counts.read()))

    def _next_signal(self) -> int | None:
        """The next signal; None when the time of workers that are to end is over."""
        if self._ends_all_by is None:
            return signal.sigwait(_SIGNALS)
        cause = signal.sigtimedwait(_SIGNALS, max(0.0, self._ends_all_by - time.monotonic()))
        return None if cause is None else cause.si_signo

    def _start(self) -> None:
        row = min(set(range(self._config.workers)) - set(self._workers.values()))
        pid = os.fork()
        if pid:
            self._workers[pid] = row
            return
        code = 1
        try:
            # From a terminal, SIGINT goes to all processes; the supervisor alone decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the worker has something to reload
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._lifeline_end)
            leave_to_supervisor(os.environ)
            code = work(
                self._config, self._open_store, self._sockets, self._lifeline, self._tell, self._counts, row, self._watchdog
            )
        except BaseException:  # noqa: BLE001 - whatever it is, the worker must not run on as a second supervisor
            _log.exception("a worker failed")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _tell(self, news: str) -> None:
        """In a worker: tell the supervisor, if it is still there."""
        if os.getppid() != self._pid:
            return
        os.write(self._news_end, f"{os.getpid()} {' '.join(news.split())}\n".encode()[:4096])
        os.kill(self._pid, signal.SIGUSR1)

    def _received(self) -> list[tuple[str, str]]:
        """The news that workers have told, each with the worker's process id."""
        try:
            lines = os.read(self._news, 1 << 16).decode().splitlines()
        except BlockingIOError:
            return []
        return [(pid, news) for pid, _, news in (line.partition(" ") for line in lines)]

    def _read_news(self) -> None:
        for pid, news in self._received():
            kind, _, message = news.partition(" ")
            if kind in _SIGNS_OF_LIFE:
                self._alive.add(int(pid))
            if kind == "ready":
                self._ready.add(int(pid))
                self._had_fault = False
                if not self._ends_all_by:
                    self._start_missing()
            elif kind == "opening":
                self._tell_of_opening(message)
            elif kind in ("alive", "deaf"):
                continue
            elif kind in _LEVELS:
                self._log_once(_LEVELS[kind], message)
            elif not self._serving:
                raise _ERRORS.get(kind, UnavailableError)(message)
            else:
                _log.error("worker %s did not start: %s", pid, message)
                if self._had_fault and not self._ends_all_by:
                    self._end_all()
        if self._watchdog and self._workers and self._workers.keys() <= self._alive:
            self._alive.clear()
            notify(b"WATCHDOG=1")
        if len(self._ready) == self._config.workers and not self._serving:
            self._serving = True
            sys.stderr.write(f"READY {' '.join(map(name, self._sockets))}\n")
            sys.stderr.flush()
            notify(b"READY=1\nSTATUS=" if self._has_status else b"READY=1")
            if self._greeting is not None:
                for line in self._greeting([name(each) for each in self._sockets]):
                    _said.info("%s", line)

    def _log_once(self, level: int, line: str) -> None:
        now = time.monotonic()
        self._said = {each: since for each, since in self._said.items() if now - since < _ALIKE}
        if line not in self._said:
            self._said[line] = now
            _log.log(level, "%s", line)

    def _tell_of_opening(self, message: str) -> None:
        if not self._serving:
            self._has_status = True
            notify(f"STATUS={message}\nEXTEND_TIMEOUT_USEC={_OPENING_SILENT * 1_000_000}".encode())

    def _start_missing(self) -> None:
        while len(self._workers) < self._config.workers:
            self._start()

    def _end_all(self) -> None:
        """Let all workers end, and begin with a first one. Damage by the fault can be mended by a process that is alone."""
        _log.error("all workers are started anew")
        self._ends_all_by = time.monotonic() + self._config.grace + _RESERVE
        self._signal_all(signal.SIGTERM)

    def _replace_the_dead(self) -> None:
        dead = self._reap()
        for pid, status in dead:
            _log.error("worker %d ended: %s", pid, _cause(status))
            self._had_fault |= os.WIFSIGNALED(status) and os.WTERMSIG(status) in _FAULTS
            if not self._serving:
                raise UnavailableError(f"a worker ended before it served: {_cause(status)}")
        if dead and not (self._ends_all_by and self._workers):
            self._ends_all_by = None
            time.sleep(_PAUSE)
            self._start()

    def _reap(self, options: int = os.WNOHANG) -> list[tuple[int, int]]:
        """Process ids and wait statuses of the workers that are dead."""
        dead: list[tuple[int, int]] = []
        for each in tuple(self._workers):
            pid, status = os.waitpid(each, options)
            if pid:
                meters.forget_now(self._counts.row(self._workers.pop(pid)))
                self._ready.discard(pid)
                self._alive.discard(pid)
                dead.append((pid, status))
        return dead

    def _end(self) -> None:
        """End the workers: gracefully, or at once when the time is over or somebody asks again."""
        notify(b"STOPPING=1")
        os.close(self._lifeline_end)
        self._signal_all(signal.SIGTERM)
        deaf: set[int] = set()
        deadline = time.monotonic() + self._config.grace + _RESERVE
        while self._workers:
            cause = signal.sigtimedwait(_SIGNALS, max(0.0, deadline - time.monotonic()))
            if cause is None or cause.si_signo in _END:
                self._signal_all(signal.SIGKILL)
                self._reap(0)
                break
            self._reap()
            deaf |= {int(pid) for pid, news in self._received() if news == "deaf"}
            if self._workers.keys() <= deaf:
                stop_listening(self._sockets)
        for end in (self._lifeline, self._news, self._news_end):
            os.close(end)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._workers:
            os.kill(pid, number)


def _cause(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

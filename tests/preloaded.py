"""Starts the program by a fork of a process that has imported all of it.

A fresh interpreter takes 0.25 s of CPU until a command is at work, a fork 0.02 s, and the suite starts the program thousands of
times. The fork is a process like another: it has a process id, signals, standard files, an environment and an end of its own.
`TVIX_STORE_TEST_FRESH=1` starts an interpreter each time, as a shell does. Tests of what comes before the command, such as a signal
that comes early, start `TVIX_STORE` themselves.

An interpreter that ends takes all of its modules apart. In a fork, that copies each page of them, for longer than a command works.
So the fork leaves this out: it waits for threads, calls what is registered with `atexit`, collects garbage, flushes, and is gone.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from tests.programs import ROOT

TVIX_STORE = Path(sysconfig.get_path("scripts"), "tvix-store")
Command = Sequence[str | bytes | Path]
_LENGTH = 8
"""Bytes of a number: the length of a request, with which the four files come; the process id and the end of the program."""
_LAZY = ("aiohttp", "brotli", "h2corn", "lz4.frame", "tomllib", "uvloop", "zstandard")
"""What commands import when they come to need it."""
_NOT_THE_PROGRAM = ("tvix_store.testing", "tvix_store.cli.__main__")


def start(
    arguments: Command,
    cwd: Path,
    environment: Mapping[str, str],
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `tvix-store` with `arguments`."""
    return popen([TVIX_STORE, *arguments], cwd=cwd, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)


def popen(
    command: Command, *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[Any]:
    """What `subprocess.Popen` does, with a fork where the program is `tvix-store`."""
    is_forked = Path(os.fsdecode(command[0])) == TVIX_STORE and "TVIX_STORE_TEST_FRESH" not in os.environ
    kind: type[subprocess.Popen[Any]] = _Forked if is_forked else subprocess.Popen
    return kind(command, cwd=cwd or Path.cwd(), env=os.environ if env is None else env, **options)


class _Forked(subprocess.Popen[bytes]):
    """A Popen whose process is a child of the preloaded process, which tells by a pipe how it ends."""

    _end: int

    def _execute_child(self, command: Command, *others: Any) -> None:
        # In CPython 3.11 to 3.14: executable, preexec_fn, close_fds, pass_fds, cwd, env, …; from the tenth on the pipes.
        cwd, environment = others[4:6]
        pipes = others[9:15]
        files = [theirs if theirs != -1 else number for number, theirs in enumerate((pipes[0], pipes[3], pipes[5]))]
        self._end, told = os.pipe()
        request = json.dumps([list(map(os.fsdecode, command)), os.fspath(cwd), dict(environment)]).encode()
        server = _preloaded()
        try:
            socket.send_fds(server, [len(request).to_bytes(_LENGTH, "big")], [*files, told])
            server.sendall(request)
        finally:
            os.close(told)
        self.pid = self._read_number()
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *_deadstate: object, **_more: object) -> int | None:
        if self.returncode is None:
            self._try_wait(os.WNOHANG)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        os.set_blocking(self._end, not flags & os.WNOHANG)
        try:
            status = self._read_number()
        except BlockingIOError:
            return 0, 0
        os.close(self._end)
        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.pid, status

    def _read_number(self) -> int:
        number = os.read(self._end, _LENGTH)
        assert number, "the preloaded process is gone"
        return int.from_bytes(number, "big")


@cache
def _preloaded() -> socket.socket:
    """The connection to the preloaded process of this process. It ends when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-m", "tests.preloaded"], cwd=ROOT, stdin=theirs.fileno())

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def main() -> None:
    """Fork for each request; in the fork, return when it is to run the program."""
    import tvix_store

    for module in pkgutil.walk_packages(tvix_store.__path__, "tvix_store."):
        if not module.name.startswith(_NOT_THE_PROGRAM):
            importlib.import_module(module.name)
    for name in _LAZY:
        importlib.import_module(name)
    gc.freeze()
    requests = socket.socket(fileno=os.dup(0))
    at_work: dict[int, tuple[int, int]] = {}
    """By the number of a file that can be read when the process has ended: its id, and where its end is to be told."""
    events = select.poll()
    events.register(requests, select.POLLIN)
    while True:
        for number, _ in events.poll():
            if number != requests.fileno():
                events.unregister(number)
                _tell(number, *at_work.pop(number))
                continue
            head, files, _, _ = socket.recv_fds(requests, _LENGTH, 4)
            if not head:
                os._exit(0)
            with requests.makefile("rb") as body:
                command, cwd, environment = json.loads(body.read(int.from_bytes(head, "big")))
            pid = os.fork()
            told = files.pop()
            if pid == 0:
                requests.close()
                for other, (_, others_told) in at_work.items():
                    os.close(other)
                    os.close(others_told)
                os.close(told)
                _become(command, cwd, environment, files)
                return
            for file in files:
                os.close(file)  # whoever waits for the end of a pipe shall not wait for this process
            os.write(told, pid.to_bytes(_LENGTH, "big"))
            end = os.pidfd_open(pid)
            at_work[end] = pid, told
            events.register(end, select.POLLIN)


def _tell(end: int, pid: int, told: int) -> None:
    """Tell of the end of a process."""
    os.close(end)
    with suppress(BrokenPipeError):  # nobody asks any more
        os.write(told, os.waitpid(pid, 0)[1].to_bytes(_LENGTH, "big"))
    os.close(told)


def _become(command: Sequence[str], cwd: str, environment: Mapping[str, str], files: Sequence[int]) -> None:
    """Look like a fresh interpreter that runs the program."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = command
    sys.stdin = sys.__stdin__ = _standard(0, "r", "<stdin>")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _standard(1, "w", "<stdout>")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _standard(2, "w", "<stderr>", errors="backslashreplace", line_buffering=True)  # type: ignore[misc]


def _standard(number: int, mode: Literal["r", "w"], name: str, **options: Any) -> io.TextIOWrapper:
    """A standard file under the name that an interpreter gives it."""
    raw = io.FileIO(number, mode, closefd=False)
    raw.name = name
    return io.TextIOWrapper(io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw), **options)


def _end(code: int) -> None:
    """End as an interpreter does, but for its modules. Return if the output cannot be written, which it then says itself."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
    from tvix_store.cli import main as program

    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, int):
            _end(end.code)
        raise

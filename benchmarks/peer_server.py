"""A peer's server: a program that listens on a port."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_STARTS_WITHIN = 20
"""Seconds."""


@contextmanager
def running(command: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run a server until the end. It has started when something listens on `port`."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process, str(command[0]))
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"{name} did not start")
            time.sleep(0.05)
        else:
            return

"""rsync as a server of one directory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
use chroot = no
uid = 0
gid = 0
[tree]
    path = {directory}
    read only = no
"""
_STARTS_WITHIN = 20
"""Seconds."""


@contextmanager
def running_rsync(directory: Path, configuration: Path) -> Iterator[str]:
    """Serve `directory` as the module `tree`; where the server listens (`host:port`). `configuration` is a file to write."""
    configuration.write_text(_CONFIGURATION.format(directory=directory))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["rsync", "--daemon", "--no-detach", f"--port={port}", "--address=127.0.0.1", f"--config={configuration}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit("rsync did not start")
            time.sleep(0.05)
        else:
            return

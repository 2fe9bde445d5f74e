"""rsync as a server of one directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peer_server import running
from tests.ports import free_port

_CONFIGURATION = """
use chroot = no
uid = 0
gid = 0
[tree]
    path = {directory}
    read only = no
"""


@contextmanager
def running_rsync(directory: Path, configuration: Path) -> Iterator[str]:
    """Serve `directory` as the module `tree`; where the server listens (`host:port`). `configuration` is a file to write."""
    configuration.write_text(_CONFIGURATION.format(directory=directory))
    port = free_port()
    command = ["rsync", "--daemon", "--no-detach", f"--port={port}", "--address=127.0.0.1", f"--config={configuration}"]
    with running(command, port):
        yield f"127.0.0.1:{port}"

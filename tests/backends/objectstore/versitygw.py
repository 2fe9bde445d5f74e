"""A real server of S3: versitygw, over a directory."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

from tests import programs
from tests.ports import free_port

_STARTS_WITHIN = 20.0
KEY, SECRET = "test-key", "test-secret"


@dataclass(frozen=True)
class Versitygw:
    """A running server. Its buckets are the directories in `directory`."""

    port: int
    directory: Path
    _numbers: Iterator[int]

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        (self.directory / name).mkdir()
        return name

    def address(self, bucket: str, port: int | None = None, **options: str) -> str:
        """The address of a store in a bucket, which is reached through a proxy on `port`."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        known = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": KEY, "secret_access_key": SECRET, **options}
        return f"objectstore+s3://{bucket}/prefix?" + "&".join(f"{name}={quote(value)}" for name, value in known.items())


@contextmanager
def versitygw(directory: Path) -> Iterator[Versitygw]:
    """Start a server in a new directory."""
    program = programs.require("versitygw")
    port = free_port()
    buckets, sidecar = directory / "buckets", directory / "sidecar"
    buckets.mkdir()
    sidecar.mkdir()
    command = (program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--sidecar", str(sidecar), str(buckets))
    environment = {**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    with (directory / "log").open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            _wait(process, port)
            yield Versitygw(port, buckets, count())
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("versitygw does not start")

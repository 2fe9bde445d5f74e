"""The daemon as a process of its own, and plain HTTP to it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests import preloaded
from tests.cli.program import Program
from tvix_store.model import nixbase32
from tvix_store.model.store_path import STORE_DIR

_STARTS_WITHIN = 20.0


@dataclass(frozen=True)
class Answer:
    """A response; the names of header fields are in lower case, and the values of equal ones together."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        """The one line of an answer for people."""
        text = self.body.decode()
        assert text.endswith("\n")
        assert text.count("\n") == 1, text
        return text[:-1]


class Daemon:
    """`tvix-store daemon` with two workers, on a free port, with a store of its own under `directory`."""

    def __init__(self, directory: Path, *options: str | Path, store_dir: str | Path = STORE_DIR) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.program = Program(directory)
        self.store_dir = str(store_dir)
        self._options = options
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._at_rest = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said on stderr, over all its starts."""
        return self._log.read_text()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None
        return self._process

    @property
    def workers(self) -> list[int]:
        """The process ids."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def start(self) -> None:
        """Start it, the first time on any port that is free, and then on the same again."""
        with self._log.open("ab") as log:
            said = log.tell()
            self._process = preloaded.start(self._arguments(), self.program.directory, self.program.environment, stderr=log)
        deadline = time.monotonic() + _STARTS_WITHIN
        while True:
            for line in self.log[said:].splitlines():
                if line.startswith("READY "):
                    self.port = int(line.split()[1].rpartition(":")[2])
                    self._at_rest = self._most_memory()
                    return
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, "the daemon does not become ready"
            time.sleep(0.02)

    def _arguments(self) -> list[str | Path]:
        address = f"127.0.0.1:{self.port}"
        return ["daemon", "-l", address, "--workers", "2", "--store-dir", self.store_dir, *self._options]

    def stop(self) -> None:
        """End it as an operator does."""
        if self._process is not None:
            self._process.terminate()
            try:
                assert self._process.wait(20) == 0
            finally:
                self._process.kill()
                self._process = None

    def kill(self) -> None:
        """End it as a power cut does, as far as processes go: the supervisor and all workers, at once."""
        assert self._process is not None
        for pid in (self._process.pid, *self.workers):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def most_memory(self) -> int:
        """The most bytes that one of the workers has had in memory, beyond what it had when it was ready."""
        return self._most_memory() - self._at_rest

    def _most_memory(self) -> int:
        return max(_status(pid, "VmHWM") for pid in self.workers)

    def memory(self) -> int:
        """Bytes in memory of all workers."""
        return sum(_status(pid, "VmRSS") for pid in self.workers)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        timeout: float = 30,
    ) -> Answer:
        """One request on a connection of its own; a body in pieces is sent chunked, unless its length is told."""
        chunked = not (body is None or isinstance(body, bytes) or "Content-Length" in headers)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers), encode_chunked=chunked)
            response = connection.getresponse()
            fields = {name.lower(): ", ".join(response.headers.get_all(name) or ()) for name in response.headers}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def head(self, path: str) -> Answer:
        return self.request("HEAD", path)

    def put(self, path: str, body: bytes | Iterable[bytes], **headers: str) -> Answer:
        return self.request("PUT", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def narinfo(self, path: str) -> bytes:
        """The narinfo of a store path that is there."""
        answer = self.get(f"/{Path(path).name[:32]}.narinfo")
        assert answer.status == 200, answer
        return answer.body

    def connect(self, timeout: float = 20) -> socket.socket:
        """A connection on which the test itself speaks."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def paths(self) -> list[str]:
        """What `tvix-store list` says."""
        return self.program("list", "--store-dir", self.store_dir).splitlines()

    def content_bytes(self) -> int:
        """Bytes of content that `tvix-store stats` counts, whether anything refers to it or not, and of its packs."""
        stats = json.loads(self.program("stats", "--json"))
        packs = self.program.directory.rglob("*.pack")
        return int(stats["uniqueBytes"]) + sum(path.stat().st_size for path in packs)

    def is_well(self) -> bool:
        """Whether it answers, and has not met an error that nobody foresaw."""
        answer = self.get("/nix-cache-info")
        return answer.status == 200 and answer.body.startswith(b"StoreDir: ") and "Traceback" not in self.log


def wait_for_tokens() -> None:
    """Wait until daemons heed what was done to their tokens."""
    time.sleep(1.0)


def nar_name(file: bytes, suffix: str = "") -> str:
    """The name under which `nix copy` puts a NAR's compressed file: `/nar/<hash>.nar<suffix>`."""
    return f"/nar/{nixbase32.encode(hashlib.sha256(file).digest())}.nar{suffix}"


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)

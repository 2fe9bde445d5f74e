"""A daemon of ours on a free port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import bench
from benchmarks.bench import TVIX_STORE


@dataclass(frozen=True, slots=True)
class Daemon:
    """Where it listens (`host:port`), and its process."""

    address: str
    process_id: int

    @property
    def url(self) -> str:
        return f"grpc+http://{self.address}"

    @property
    def cache_url(self) -> str:
        """Of the binary cache."""
        return f"http://{self.address}"

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        return [int(each) for each in Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()]


@contextmanager
def running_daemon(store: Path, *options: str | Path) -> Iterator[Daemon]:
    """Serve the local store in `store` with as many workers as a user gets who says nothing."""
    command = [TVIX_STORE, "daemon", "--store", f"local://{store}", "--listen-address", "127.0.0.1:0", *options]
    process = bench.start(command, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.stderr
    try:
        yield Daemon(_address(process.stderr), process.pid)
    finally:
        process.terminate()
        sys.stderr.write(process.communicate()[1])


def _address(stderr: Iterator[str]) -> str:
    """Where the daemon listens, once it does."""
    said = []
    for line in stderr:
        if line.startswith("READY "):
            return line.split()[1]
        said.append(line)
    sys.exit("the daemon did not start:\n" + "".join(said))

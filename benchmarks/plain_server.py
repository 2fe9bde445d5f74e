"""A server of one file, on our engine with our settings: what the way through the engine costs, and nothing else.

`python -m benchmarks.plain_server FILE` prints where it listens, and serves until its standard input is closed. `/read` reads the
file in a thread, a piece at a time, as the cache reads packs; `/pathsend` leaves it to the engine to send the file.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.bench import ROOT
from tvix_store.asgi import Event, Receive, Send
from tvix_store.server.settings import ServerConfig
from tvix_store.server.worker import serving

_PIECE = 1024 * 1024


@contextmanager
def running_plain_server(file: Path) -> Iterator[str]:
    """Serve `file`; the server's URL."""
    command = [sys.executable, "-m", "benchmarks.plain_server", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


class PlainServer:
    """The ASGI application."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        length = b"%d" % self._file.stat().st_size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        if scope["path"] == "/pathsend":
            await send({"type": "http.response.pathsend", "path": str(self._file)})
            return
        with self._file.open("rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


async def _serve(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(PlainServer(file), [listener], ServerConfig()):
            print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1]).resolve()))

"""A server of files on our engine with our settings, one process: what the way through the engine costs, and nothing else.

`python -m benchmarks.plain_server DIRECTORY` prints its URL, and serves until its standard input is closed. GET reads a file in a
thread, a piece at a time, as the cache reads packs; with `?pathsend` it leaves the file to the engine. PUT writes a file.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import uvloop

from benchmarks.bench import ROOT
from tvix_store.asgi import Event, Receive, Send
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig

_PIECE = 1024 * 1024


@contextmanager
def running_plain_server(directory: Path) -> Iterator[str]:
    """Serve the files in `directory`; the server's URL."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.plain_server", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


class PlainServer:
    """The ASGI application. It trusts its clients."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        path = self._directory / scope["path"].lstrip("/")
        if scope["method"] == "PUT":
            await _write(path, receive)
            await _start(send, 201, 0)
        elif not path.is_file():
            await _start(send, 404, 0)
        else:
            await _start(send, 200, path.stat().st_size)
            if scope["method"] == "GET" and scope["query_string"] == b"pathsend":
                await send({"type": "http.response.pathsend", "path": str(path)})
                return
            if scope["method"] == "GET":
                await _read(path, send)
        await send({"type": "http.response.body"})


async def _start(send: Send, status: int, length: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % length)]})


async def _read(path: Path, send: Send) -> None:
    with path.open("rb", buffering=0) as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _write(path: Path, receive: Receive) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        more = True
        while more:
            event = await receive()
            file.write(event.get("body", b""))
            more = event.get("more_body", False)
    os.replace(file.name, path)


async def _serve(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(PlainServer(directory), [listener], ServerConfig()):
            print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Path(sys.argv[1]).resolve()))

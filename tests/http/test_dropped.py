"""Connections that break off in the middle of a NAR: Nix goes on where it was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tests.http.test_nix import same
from tests.tcp_server import pass_on, port, tcp_server
from tvix_store.testing.content import noise

_CUT_AFTER = 1 << 20
"""Bytes of answers on one connection, after which it breaks off."""


class DroppingProxy:
    """Passes connections on to a port, and breaks the first `drops` off that carry more than _CUT_AFTER bytes."""

    def __init__(self, target: int, drops: int) -> None:
        self.drops_left = drops
        self.port = 0
        self._target = target

    async def serve(self, ready: threading.Event, end: asyncio.Event) -> None:
        async with tcp_server(self._carry) as server:
            self.port = port(server)
            ready.set()
            await end.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", self._target)
        asking = asyncio.create_task(pass_on(reader, questions))
        passed = 0
        try:
            while piece := await answers.read(1 << 16):
                writer.write(piece)
                await writer.drain()
                passed += len(piece)
                if passed > _CUT_AFTER and self.drops_left:
                    self.drops_left -= 1
                    writer.transport.abort()
                    break
        finally:
            asking.cancel()
            questions.transport.abort()


@contextmanager
def dropping(target: int, drops: int) -> Iterator[DroppingProxy]:
    proxy = DroppingProxy(target, drops)
    loop, ready, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(ready, end),))
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_nix_survives_three_dropped_connections(
    start_daemon: Callable[..., Daemon], nix: Nix, other_nix: Callable[..., Nix], tmp_path: Path, compression: str
) -> None:
    daemon = start_daemon("--nar-compression", compression)
    (tmp_path / "noise").write_bytes(noise(8 << 20))
    path = nix.add(tmp_path / "noise")
    nix.copy_to(f"{daemon.url}?compression=none", path)
    other = other_nix()
    with dropping(daemon.port, 3) as proxy:
        other("nix", "copy", "--no-check-sigs", "--from", f"http://127.0.0.1:{proxy.port}", path)
        assert proxy.drops_left == 0
    assert same(nix, other, path)

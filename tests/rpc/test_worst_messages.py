"""Whatever messages one client sends, others are served meanwhile, and the daemon can be ended."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests import programs
from tests.http.daemon import Daemon
from tests.rpc.worst_messages import bodies, chain
from tvix_store.backends.local import open_store
from tvix_store.protocol.dialects import DIALECTS, SNIX, TVIX
from tvix_store.protocol.path_infos import encode_get_path_info
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.rpc.framing import frame
from tvix_store.rpc.services import serve_store
from tvix_store.rpc.status import Status

LONGEST_WAIT = 5.0
"""Seconds. On a machine that does nothing else, others wait for 0.1 s; before there were bounds, for 3 s to minutes."""


class Others:
    """Small requests, one after the other, over HTTP and gRPC, to a daemon that has one worker."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kind,)) for kind in ("http", "grpc")]
        self._answered: dict[str, float] = {}
        """When the last answer came, by kind of request."""
        self._longest = 0.0

    @contextmanager
    def asking(self) -> Iterator[Others]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()

    @contextmanager
    def do_not_wait(self) -> Iterator[None]:
        """See that none of the requests takes long while the body runs."""
        self._longest = 0.0
        yield
        ended = time.monotonic()
        deadline = ended + 60
        while time.monotonic() < deadline and min(self._answered.get(kind, 0) for kind in ("http", "grpc")) < ended:
            time.sleep(0.02)
        assert self._longest < LONGEST_WAIT

    def _ask(self, kind: str) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self._daemon.port}") as channel:
            get: Any = channel.unary_unary(SNIX.path_info("Get"))
            while not self._ended.is_set():
                asked = time.monotonic()
                if kind == "http":
                    assert self._daemon.get("/nix-cache-info").status == 200
                else:
                    with pytest.raises(grpc.RpcError) as caught:
                        get(encode_get_path_info(bytes(20)), timeout=60)
                    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
                now = time.monotonic()
                self._longest = max(self._longest, now - asked)
                self._answered[kind] = now
                time.sleep(0.01)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It takes paths before their references, so that it looks at all of them."""
    daemon = Daemon(tmp_path_factory.mktemp("worst"), "--workers", "1", "--no-require-references")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def others(daemon: Daemon) -> Iterator[Others]:
    with Others(daemon).asking() as others:
        yield others


def send(daemon: Daemon, directory: Path, path: str, bodies: Iterable[bytes], *headers: str) -> list[str]:
    """Send each body in a call of its own, two at a time; the `grpc-status` of the answers, empty where curl has seen none.

    It sees none where the call ends while it is still sending.
    """
    curl = [programs.require("curl"), "--silent", "--http2-prior-knowledge", "--max-time", "60", "--output", "/dev/null"]

    def sent(number: int, body: bytes) -> str:
        file, answer = directory / f"body-{number}", directory / f"answer-{number}"
        file.write_bytes(body)
        answer.unlink(missing_ok=True)
        fields = [
            "content-type: application/grpc",
            "te: trailers",
            *headers,
            *(["grpc-encoding: gzip"] if body[:1] == b"\1" else []),
        ]
        options = [word for field in fields for word in ("--header", field)]
        subprocess.run([*curl, *options, "--dump-header", answer, "--data-binary", f"@{file}", daemon.url + path], check=False)
        return _status(answer)

    with ThreadPoolExecutor(2) as calls:
        return list(calls.map(sent, count(), bodies))


def _status(headers: Path) -> str:
    lines = headers.read_text().lower().splitlines() if headers.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("grpc-status:")), "")


async def largest_messages(directory: Path) -> dict[str, int]:
    """Every method that a daemon serves, and how many bytes its messages may have."""
    async with await open_store(directory) as store:
        app, _ = serve_store(store)
        return {path: method.takes.max_message for path, method in app.methods.items()}


@pytest.mark.timeout(400)
async def test_no_message_to_any_method_keeps_others_waiting(daemon: Daemon, others: Others, tmp_path: Path) -> None:
    methods = await largest_messages(tmp_path / "store")
    assert {dialect.directory("Put") for dialect in DIALECTS} <= set(methods)
    for path, largest in methods.items():
        with others.do_not_wait():
            send(daemon, tmp_path, path, bodies(path, largest), "grpc-timeout: 10S" if path.endswith("Put") else "grpc-timeout: 1S")
    assert daemon.is_well()


def test_no_tree_however_deep_keeps_others_waiting(daemon: Daemon, others: Others, tmp_path: Path) -> None:
    directories, node = chain(60_000)
    with others.do_not_wait():
        assert send(daemon, tmp_path, TVIX.directory("Put"), [b"".join(map(frame, directories))]) == ["0"]
    digest = node[4:36]
    with others.do_not_wait():
        assert send(daemon, tmp_path, TVIX.path_info("CalculateNAR"), [frame(node)]) == ["0"]
    with others.do_not_wait():
        assert send(daemon, tmp_path, TVIX.directory("Get"), [frame(b"\x0a\x20" + digest + b"\x10\x01")]) == ["0"]


def test_a_deadline_holds_while_a_message_is_decoded(daemon: Daemon, tmp_path: Path) -> None:
    *_, symlinks, _ = bodies(SNIX.directory("Put"), MAX_MESSAGE)
    began = time.monotonic()
    statuses = send(daemon, tmp_path, SNIX.directory("Put"), [symlinks] * 3, "grpc-timeout: 100m")
    assert set(statuses) <= {str(int(Status.DEADLINE_EXCEEDED)), ""}  # curl may still be sending, and then shows none
    assert time.monotonic() - began < LONGEST_WAIT


def test_a_daemon_ends_when_it_is_told_to_while_messages_are_decoded(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "daemon", "--workers", "1", "--shutdown-timeout", "1")
    daemon.start()
    *_, symlinks, _ = bodies(SNIX.directory("Put"), MAX_MESSAGE)
    attack = threading.Thread(target=send, args=(daemon, tmp_path, SNIX.directory("Put"), [symlinks] * 6))
    attack.start()
    time.sleep(1)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 5.5  # at 6, workers that do not end are killed
    attack.join()
    assert "Traceback" not in daemon.log

"""Clients that announce and do not send, or ask and do not read: memory is bounded and given back, and others are served."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.http.daemon import Daemon, nar_name
from tests.server.raw_http2 import RawHttp2
from tvix_store.model.digest import Digest
from tvix_store.protocol.chunk_stores import encode_put_blob
from tvix_store.protocol.dialects import BLOB_STORE_SERVICE
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

MIB = 1 << 20
MEMORY = 32 * MIB
"""What all clients may make the worker keep, each way."""
ALLOWED = 160 * MIB
"""What a worker may take beyond what it has at rest: the above, 64 MiB that few readers read ahead, what the engine holds of each
connection, and room for a busy allocator. Without bounds, each of these attacks takes 400 MiB to 2 GiB."""
CONTENT = noise(12 * MIB, "slow clients")
NAR = trees.nar(TreeFile(CONTENT))
TREE = trees.nar({b"f%d" % number: TreeFile(noise(40_000, f"slow {number}")) for number in range(200)})


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "daemon", "--workers", "1", "--transfer-memory", str(MEMORY))
    daemon.start()
    assert daemon.put(nar_name(NAR), NAR).status == 201
    assert daemon.put(nar_name(TREE), TREE).status == 201
    for name in (nar_name(NAR), nar_name(TREE)):
        for suffix in ("", ".zst"):
            assert daemon.get(name + suffix).status == 200
    yield daemon
    daemon.stop()


def upload_messages(daemon: Daemon, held: ExitStack) -> None:
    """One connection, 60 messages of 4 MiB, of each of which the last byte is missing."""
    connection = RawHttp2(daemon.port)
    held.callback(connection.close)
    left = {connection.call("/tvix.castore.v1.BlobService/Put"): 4 * MIB - 1 for _ in range(60)}
    for stream in left:
        connection.send(stream, b"\0" + (4 * MIB).to_bytes(4))
    piece = bytes(1 << 16)
    stops = time.monotonic() + 5
    while any(left.values()) and time.monotonic() < stops:
        for stream, missing in left.items():
            left[stream] -= connection.send(stream, piece[:missing])
            if stream in connection.ended:
                left[stream] = 0
        connection.read(0.01)


def whole_messages(daemon: Daemon, held: ExitStack) -> None:
    """Two connections, 60 calls each. Their messages of a MiB are whole, and take 7 when they are decoded; no call is ended."""
    chunks = [(Digest(noise(32, str(number))), 1) for number in range(27_000)]
    message = frame(encode_put_blob(Digest.of(b"x"), chunks))
    for _ in range(2):
        connection = RawHttp2(daemon.port)
        held.callback(connection.close)
        rest = {connection.call(f"/{BLOB_STORE_SERVICE}/PutBlob"): message for _ in range(60)}
        stops = time.monotonic() + 4
        while any(rest.values()) and time.monotonic() < stops:
            for stream, data in rest.items():
                rest[stream] = b"" if stream in connection.ended else data[connection.send(stream, data[: 1 << 16]) :]
            connection.read(0.01)
        for stream in rest.keys() - connection.ended.keys():
            connection.send(stream, b"")


def ask(path: str) -> Callable[[Daemon, ExitStack], None]:
    """Eight connections with 60 requests each, and no window for the answers."""

    def attack(daemon: Daemon, held: ExitStack) -> None:
        for _ in range(8):
            connection = RawHttp2(daemon.port, window=0)
            held.callback(connection.close)
            for _ in range(60):
                connection.request("GET", path)

    return attack


def read_blobs(daemon: Daemon, held: ExitStack) -> None:
    message = b"\x0a\x20" + Digest.of(CONTENT).raw
    for _ in range(8):
        connection = RawHttp2(daemon.port, window=0)
        held.callback(connection.close)
        for _ in range(60):
            connection.send(connection.call("/tvix.castore.v1.BlobService/Read"), frame(message), ends=True)


def read_blobs_by_connect(daemon: Daemon, held: ExitStack) -> None:
    """Forty connections over HTTP/1.1 that read nothing."""
    message = frame(b"\x0a\x20" + Digest.of(CONTENT).raw)
    head = (
        "POST /rpc/v1/tvix.castore.v1.BlobService/Read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\n"
    )
    for _ in range(40):
        connection = socket.socket()
        held.callback(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", daemon.port))
        connection.sendall(head.encode() + f"Content-Length: {len(message)}\r\n\r\n".encode() + message)


def ask_by_http1(path: str) -> Callable[[Daemon, ExitStack], None]:
    """Forty connections that read nothing."""

    def attack(daemon: Daemon, held: ExitStack) -> None:
        for _ in range(40):
            connection = socket.socket()
            held.callback(connection.close)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", daemon.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    return attack


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(upload_messages, id="unfinished messages"),
        pytest.param(whole_messages, id="unfinished calls"),
        pytest.param(ask(nar_name(TREE, ".zst")), id="NARs over HTTP/2"),
        pytest.param(read_blobs, id="blobs"),
        pytest.param(read_blobs_by_connect, id="blobs over HTTP/1.1"),
        pytest.param(ask_by_http1(nar_name(TREE)), id="NARs over HTTP/1.1"),
    ],
)
def test_slow_clients_take_bounded_memory_and_others_are_served(
    daemon: Daemon, attack: Callable[[Daemon, ExitStack], None]
) -> None:
    at_rest = daemon.memory()
    with ExitStack() as held:
        attack(daemon, held)
        for _ in range(10):
            assert daemon.request("GET", "/nix-cache-info", timeout=10).status == 200
            time.sleep(0.1)
        # Even what needs a place of its own gets one, from those who do nothing.
        assert daemon.request("GET", nar_name(NAR), timeout=60).body == NAR
        assert daemon.put(nar_name(TREE), TREE).status == 201
        assert daemon.most_memory() < at_rest // 2 + ALLOWED
    stops = time.monotonic() + 30
    while daemon.memory() > at_rest + 80 * MIB:
        assert time.monotonic() < stops, "memory is not given back"
        time.sleep(0.2)
    assert daemon.is_well()


def test_a_message_that_does_not_go_on_makes_room_for_others(daemon: Daemon) -> None:
    slow: dict[RawHttp2, int] = {}
    with ExitStack() as held:
        for _ in range(2):
            connection = RawHttp2(daemon.port)
            held.callback(connection.close)
            slow[connection] = connection.call("/tvix.castore.v1.BlobService/Put")
            connection.send(slow[connection], b"\0" + (16 * MIB - 1).to_bytes(4) + bytes(10_000))
        time.sleep(0.5)
        data = noise(2 * MIB, "other")
        with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
            put: Any = channel.stream_unary("/tvix.castore.v1.BlobService/Put")
            assert put(iter([b"\x0a\x80\x80\x80\x01" + data]), timeout=60) == b"\x0a\x20" + Digest.of(data).raw
        for connection in slow:
            connection.read(0.2)
        assert sum(stream in connection.ended for connection, stream in slow.items()) == 1

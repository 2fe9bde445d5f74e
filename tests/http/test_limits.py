"""Limits of each client at a real daemon, with real clients."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.program import Program
from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_digest, encode_chunk
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

NAR = trees.nar(TreeFile(noise(3 << 20, "limits")))
MIB = 1 << 20
EIGHT = 'map (n: sh "p${toString n}" "mkdir $out; head -c 300000 /dev/urandom > $out/x; echo $out > $out/self") [ 1 2 3 4 5 6 7 8 ]'


def get(daemon: Daemon, path: str, source: str = "127.0.0.1", timeout: float = 60) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=timeout, source_address=(source, 0))
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_nix_pushes_and_fetches_within_the_tightest_limits(
    start_daemon: Callable[..., Daemon], nix: Nix, other_nix: Callable[..., Nix]
) -> None:
    daemon = start_daemon("--limit-requests", "1", "--limit-uploads", "1", "--limit-rate", str(8 * MIB))
    paths = nix.build(EIGHT)
    nix.copy_to(f"{daemon.url}?compression=none", *paths)
    assert sorted(daemon.paths()) == sorted(paths)
    other = other_nix()
    other("nix-store", "-r", *paths, "--option", "substituters", daemon.url)
    assert all(trees.read(other.real(path)) == trees.read(nix.real(path)) for path in paths)


@pytest.fixture
def one_worker(start_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    return lambda *options: start_daemon("--workers", "1", *options)


def test_a_client_that_holds_all_its_places_keeps_nobody_else_waiting(one_worker: Callable[..., Daemon]) -> None:
    daemon = one_worker("--limit-requests", "2", "--limit-uploads", "2")
    with ExitStack() as held:
        for number in range(20):
            connection = held.enter_context(daemon.connect())
            head = f"PUT /nar/{number:052}.nar HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MIB}\r\n\r\n"
            connection.sendall(head.encode() + NAR[:1000])
        time.sleep(0.3)
        began = time.monotonic()
        assert get(daemon, "/nix-cache-info", "127.0.0.2")[0] == 200
        assert time.monotonic() - began < 5
        with pytest.raises(TimeoutError):  # its own requests wait
            get(daemon, "/nix-cache-info", "127.0.0.1", timeout=1)
    assert get(daemon, "/nix-cache-info", "127.0.0.1")[0] == 200


def test_answers_and_bodies_of_a_client_move_at_its_rate(one_worker: Callable[..., Daemon]) -> None:
    daemon = one_worker("--limit-rate", str(2 * MIB))
    began = time.monotonic()
    assert daemon.put(nar_name(NAR), NAR).status == 201
    assert time.monotonic() - began > 1
    began = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        sources = ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]
        got = list(clients.map(lambda source: (get(daemon, nar_name(NAR), source), time.monotonic() - began), sources))
    assert all(answer == (200, NAR) for answer, _ in got)
    assert min(took for _, took in got[:2]) > 1.5  # the two share the rate
    assert all(1 < took < 20 for _, took in got[2:])


def test_slow_bytes_are_not_taken_for_silence(one_worker: Callable[..., Daemon]) -> None:
    """Thirty uploads of one client share 64 KiB a second, and the clock for bodies is shorter than their turns."""
    daemon = one_worker("--limit-rate", str(1 << 16), "--body-timeout", "12")
    nars = [trees.nar(TreeFile(noise(60_000, f"slow bytes {number}"))) for number in range(8)]
    with ThreadPoolExecutor(8) as clients:
        statuses = list(clients.map(lambda nar: daemon.put(nar_name(nar), nar).status, nars))
    assert statuses == [201] * 8


def test_a_proxy_that_is_trusted_tells_the_clients_apart(one_worker: Callable[..., Daemon]) -> None:
    daemon = one_worker("--limit-requests", "1", "--trust-proxy", "127.0.0.1")

    def hold(address: str, source: str = "127.0.0.1") -> Iterator[None]:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20, source_address=(source, 0))
        connection.putrequest("PUT", nar_name(NAR))
        connection.putheader("Content-Length", str(len(NAR)))
        connection.putheader("X-Forwarded-For", address)
        connection.endheaders(NAR[:1000])
        yield
        connection.close()

    holding = hold("192.0.2.7")
    next(holding)
    time.sleep(0.3)
    assert daemon.get("/nix-cache-info", X_Forwarded_For="192.0.2.8").status == 200
    with pytest.raises(TimeoutError):
        daemon.request("GET", "/nix-cache-info", headers={"X-Forwarded-For": "192.0.2.7"}, timeout=1)
    next(holding, None)


def test_calls_that_write_are_uploads(one_worker: Callable[..., Daemon]) -> None:
    daemon = one_worker("--limit-uploads", "1")
    with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
        put: Any = channel.stream_unary("/tvix.castore.v1.BlobService/Put")
        stat: Any = channel.unary_unary("/tvix.castore.v1.BlobService/Stat")
        ending = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield encode_chunk(b"first")
            ending.wait(20)

        first = put.future(slowly())
        time.sleep(0.5)
        with pytest.raises(grpc.RpcError) as refused:
            put(iter([encode_chunk(b"second")]), timeout=1)
        assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # it waits
        with pytest.raises(grpc.RpcError) as absent:
            stat(b"\x0a\x20" + bytes(32), timeout=10)
        assert absent.value.code() == grpc.StatusCode.NOT_FOUND
        ending.set()
        assert decode_digest(first.result(20)) == Digest.of(b"first")
        assert decode_digest(put(iter([encode_chunk(b"second")]), timeout=20)) == Digest.of(b"second")


@pytest.mark.parametrize(
    ("option", "value", "code"), [("--limit-requests", "0", 2), ("--limit-rate", "1000", 2), ("--trust-proxy", "nobody", 3)]
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, option: str, value: str, code: int) -> None:
    done = Program(tmp_path).run("daemon", option, value)
    assert done.code == code
    assert value in done.error
    assert "Traceback" not in done.error

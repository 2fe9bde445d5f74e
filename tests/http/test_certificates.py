"""Certificates change while a daemon serves: no request fails, and new connections soon see the new one."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.program import Program
from tests.http.daemon import Daemon, nar_name
from tests.server.certificates import Authority, Pair
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

WITHIN = 1.0
"""Seconds in which a new certificate is in force."""
PATIENCE = 15.0
"""Seconds that tests wait for it where the time itself is not the point."""
NAR = trees.nar(TreeFile(noise(12 << 20, "certificates")))


class Served:
    """A daemon with the certificates of an authority."""

    def __init__(self, start: Callable[..., Daemon], directory: Path, *options: str | Path) -> None:
        self.authority = Authority()
        self.directory = directory
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.authority.certificate)
        certificate, key = self.authority.sign().write(directory, "server")
        self.daemon = start("--tls-certificate", certificate, "--tls-key", key, *options)

    def renew(self) -> Pair:
        pair = self.authority.sign()
        pair.write(self.directory, "server")
        return pair

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            context.load_cert_chain(*client.write(self.directory, "client"))
        return context

    def connect(self, client: Pair | None = None) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.daemon.port, context=self.context(client), timeout=20)

    def seen(self) -> bytes:
        """The certificate that a new connection gets."""
        with (
            socket.create_connection(("localhost", self.daemon.port), 20) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            seen = connection.getpeercert(binary_form=True)
            assert seen is not None
            return seen

    def waits_for(self, pair: Pair, patience: float = PATIENCE) -> float:
        """Seconds until eight new connections in a row, which come to any worker, see a certificate."""
        began = time.monotonic()
        while not all(self.seen() == pair.der for _ in range(8)):
            assert time.monotonic() < began + patience, self.daemon.log
        return time.monotonic() - began

    def says(self, line: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while line not in self.daemon.log:
            assert time.monotonic() < deadline, self.daemon.log
            time.sleep(0.02)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.daemon.log.splitlines() if "ERROR" in line]


@pytest.fixture
def served(start_daemon: Callable[..., Daemon], tmp_path: Path) -> Served:
    return Served(start_daemon, tmp_path)


def get(connection: HTTPSConnection) -> bool:
    connection.request("GET", "/nix-cache-info")
    answer = connection.getresponse()
    return answer.read().startswith(b"StoreDir") and answer.status == 200


_PAUSE = 0.01
"""Seconds between two requests of a client: requests as fast as they go find no more, and take both cores."""


class Load:
    """Clients in threads, and the requests of theirs that failed."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []
        self._ends = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, client: Callable[[], Generator[bool, None, None]]) -> None:
        def work() -> None:
            try:
                with closing(client()) as answers:
                    for is_right in answers:
                        self.done += 1
                        if not is_right:
                            self.failed.append(client.__name__)
                        if self._ends.wait(_PAUSE):
                            return
            except Exception as error:  # noqa: BLE001 - each is a request that failed
                self.failed.append(f"{client.__name__}: {error!r}")

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)


def test_certificates_that_change_under_load_fail_no_request(served: Served) -> None:
    """Clients of all kinds, none of which tries again; and a NAR that comes, and one that goes, through all changes."""
    upload = noise(3 << 20, "slow upload")
    nar = trees.nar(TreeFile(upload))

    def keeps_alive() -> Generator[bool, None, None]:
        with closing(served.connect()) as connection:
            while True:
                yield get(connection)

    def connects_anew() -> Generator[bool, None, None]:
        while True:
            with closing(served.connect()) as connection:
                yield get(connection)

    def calls() -> Generator[bool, None, None]:
        credentials = grpc.ssl_channel_credentials(served.authority.certificate)
        with grpc.secure_channel(f"localhost:{served.daemon.port}", credentials) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            while True:
                yield check(b"", timeout=20) == b"\x08\x01"

    def uploads() -> Generator[bool, None, None]:
        def slowly() -> Iterator[bytes]:
            for at in range(0, len(nar), 1 << 18):
                time.sleep(0.8)
                yield nar[at : at + (1 << 18)]

        with closing(served.connect()) as connection:
            connection.request("PUT", nar_name(nar), slowly(), {"Content-Length": str(len(nar))})
            yield connection.getresponse().status == 201

    def downloads() -> Generator[bool, None, None]:
        with closing(served.connect()) as connection:
            connection.request("GET", nar_name(NAR))
            answer = connection.getresponse()
            came = bytearray()
            while piece := answer.read(1 << 20):
                came += piece
                time.sleep(0.8)
            yield came == NAR

    with closing(served.connect()) as connection:
        connection.request("PUT", nar_name(NAR), NAR)
        assert connection.getresponse().status == 201
    load = Load()
    for client in (*[keeps_alive] * 4, *[connects_anew] * 4, *[calls] * 2, uploads, downloads):
        load.run(client)
    waits = []
    for _ in range(10):
        waits.append(served.waits_for(served.renew()))
        time.sleep(1.2)
    load.end()
    print(f"{load.done} requests, {len(load.failed)} failed; in force after {max(waits):.2f} s at most")
    assert load.failed == []
    assert load.done > 500
    assert served.errors == []
    assert min(waits) < WITHIN  # the machine may be busy; the figure that is printed is the worst


@pytest.mark.parametrize("broken", ["no PEM", "key of another", "no file", "no rights"])
def test_files_that_cannot_be_used_leave_the_old_certificate_in_force(served: Served, broken: str) -> None:
    if broken == "no rights" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    old = served.seen()
    certificate, key = served.directory / "server.pem", served.directory / "server.key"
    match broken:
        case "no PEM":
            certificate.write_text("no certificate")
        case "key of another":
            key.write_bytes(served.authority.sign().key)
        case "no file":
            key.unlink()
        case _:
            key.chmod(0)
    served.says("TLS certificate not reloaded, the old one stays in force: ")
    time.sleep(2.5)  # each worker has tried, and once only
    assert len(served.errors) == 1, served.errors
    assert all(served.seen() == old for _ in range(8))
    if key.exists():
        key.chmod(0o600)
    served.waits_for(served.renew())


def test_sighup_reloads_at_once_and_says_so_in_one_line(served: Served) -> None:
    process = served.daemon.process
    process.send_signal(signal.SIGHUP)
    served.says("TLS certificate unchanged")
    certificate = served.directory / "server.pem"
    pair = served.authority.sign()
    stamp = certificate.stat()
    pair.write(served.directory, "server")
    os.utime(certificate, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    process.send_signal(signal.SIGHUP)
    served.waits_for(pair)
    served.says("TLS certificate reloaded")
    assert served.daemon.log.count("TLS certificate unchanged") == 1


def test_sighup_without_tls_reloads_nothing_and_ends_nothing(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    workers = daemon.workers
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while "there is nothing to reload" not in daemon.log:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert daemon.is_well()
    assert daemon.workers == workers


def test_a_store_in_memory_keeps_its_content(tmp_path: Path) -> None:
    """The store is not opened anew."""
    certificate, key = Authority().sign().write(tmp_path, "server")
    daemon = Daemon(tmp_path / "daemon", "--store", "memory:", "--workers", "1", "--tls-certificate", certificate, "--tls-key", key)
    daemon.start()
    nar = trees.nar(TreeFile(b"kept"))
    curl = ["curl", "-fsSk", f"https://127.0.0.1:{daemon.port}{nar_name(nar)}"]
    try:
        subprocess.run([*curl, "-T", "-"], input=nar, check=True, capture_output=True)
        Authority().sign().write(tmp_path, "server")
        deadline = time.monotonic() + PATIENCE
        while "TLS certificate reloaded" not in daemon.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert subprocess.run(curl, check=True, capture_output=True).stdout == nar
    finally:
        daemon.stop()


def test_the_daemon_ends_in_time_though_a_retired_engine_is_at_work(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    served = Served(start_daemon, tmp_path, "--shutdown-timeout", "1")
    connection = served.connect()
    connection.putrequest("PUT", nar_name(NAR))
    connection.putheader("Content-Length", str(len(NAR)))
    connection.endheaders(NAR[: 1 << 16])
    served.waits_for(served.renew())
    began = time.monotonic()
    served.daemon.stop()
    assert time.monotonic() - began < 5
    connection.close()


def test_only_clients_with_a_certificate_of_the_authority_are_let_in(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    clients = Authority("clients")
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(clients.certificate)
    served = Served(start_daemon, tmp_path, "--tls-client-ca", client_ca)
    known, unknown = clients.sign("build-1"), Authority("others").sign("build-1")
    connection = served.connect(known)
    assert get(connection)
    connection.close()
    for stranger in (None, unknown):
        connection = served.connect(stranger)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(connection)
        connection.close()

    # The authority is exchanged: its clients are let in no more, and the others are.
    client_ca.write_bytes(Authority("new").certificate)
    deadline = time.monotonic() + PATIENCE
    while "TLS certificate reloaded" not in served.daemon.log:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)  # the other worker
    connection = served.connect(known)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(connection)
    connection.close()


def test_certificates_of_clients_may_be_optional(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    client_ca = tmp_path / "clients.pem"
    clients = Authority("clients")
    client_ca.write_bytes(clients.certificate)
    served = Served(start_daemon, tmp_path, "--tls-client-ca", client_ca, "--tls-client-auth", "optional")
    for client in (None, clients.sign("build-1")):
        connection = served.connect(client)
        assert get(connection)
        connection.close()
    connection = served.connect(Authority("others").sign("build-1"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(connection)
    connection.close()


def test_a_certificate_authority_needs_tls(tmp_path: Path) -> None:
    done = Program(tmp_path).run("daemon", "--tls-client-ca", "ca.pem")
    assert done.code == 2
    assert "--tls-client-ca needs --tls-certificate and --tls-key" in done.error

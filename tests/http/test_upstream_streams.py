"""A daemon with two workers before an upstream, and real clients: to ask costs little, and what is wanted comes at once."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tests.http.upstream import KEY, Upstream
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

SIZE = 24 << 20
LATENCY = 0.02


def nar_of(daemon: Daemon, path: StorePath) -> str:
    """Where a narinfo says that the NAR is."""
    return "/" + NarInfo.parse(daemon.narinfo(str(path)), daemon.store_dir).url


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def test_500_clients_of_two_workers_share_one_fetch_and_the_first_byte_is_early(
    start_daemon: Callable[..., Daemon],
    make_upstream: Callable[..., Upstream],
) -> None:
    upstream = make_upstream()
    daemon = start_daemon("--substituters", upstream.url)
    nar = trees.nar(TreeFile(noise(SIZE, "large")))
    path = upstream.publish(daemon.store_dir, "large", nar)
    url = nar_of(daemon, path)
    assert upstream.nars_asked == 0
    upstream.gate.clear()
    sha256 = hashlib.sha256(nar).digest()
    first_bytes: list[bool] = []

    def get(_: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
        try:
            connection.request("GET", url)
            response = connection.getresponse()
            assert response.status == 200
            read = hashlib.sha256()
            begun = False
            while piece := response.read(1 << 16):
                if not begun:
                    begun = True
                    first_bytes.append(not upstream.gate.is_set())
                read.update(piece)
            return read.digest() == sha256
        finally:
            connection.close()

    with ThreadPoolExecutor(500) as clients:
        answers = [clients.submit(get, number) for number in range(500)]
        until(lambda: bool(first_bytes), 60)
        upstream.gate.set()
        assert all(answer.result(120) for answer in answers)
    print("NARs fetched", upstream.nars_asked)
    print("clients whose first byte came before the upstream's last", sum(first_bytes))
    assert upstream.nars_asked == 1
    assert first_bytes[0]
    assert daemon.paths() == [path.absolute(daemon.store_dir)]
    assert daemon.is_well()


def test_what_turns_out_false_after_nine_tenths_is_whole_for_nobody(
    start_daemon: Callable[..., Daemon], make_upstream: Callable[..., Upstream], tmp_path: Path
) -> None:
    """With curl, whose exit code tells that an answer broke off."""
    upstream = make_upstream()
    daemon = start_daemon("--substituters", upstream.url)
    nar = trees.nar(TreeFile(noise(SIZE, "large")))
    path = upstream.publish(daemon.store_dir, "large", nar)
    url = f"{daemon.url}{nar_of(daemon, path)}"
    at = len(nar) * 9 // 10
    upstream.files["/nar/large.nar"] = nar[:at] + bytes([nar[at] ^ 1]) + nar[at + 1 :]
    for version in ("--http1.1", "--http2-prior-knowledge"):
        upstream.gate.clear()
        got = tmp_path / f"got{version}"
        command = ("curl", "-sS", "--fail", version, "-o", got, url)
        clients = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
        until(lambda got=got: got.exists() and got.stat().st_size > 0)  # type: ignore[misc]
        upstream.gate.set()
        for client in clients:
            _, said = client.communicate(timeout=60)
            # 18: the file is partial; 22: 404, of a worker that came late; 56, 92: broken off.
            assert client.returncode in (18, 22, 56, 92), said
        assert got.stat().st_size < len(nar)
        assert daemon.paths() == []
        for pid in daemon.workers:  # new ones have no memory of the lie
            os.kill(pid, signal.SIGKILL)
        until(daemon.is_well)
    upstream.files["/nar/large.nar"] = nar
    assert daemon.get(nar_of(daemon, path)).body == nar


def test_workers_killed_while_they_stream_leave_nothing_and_the_url_stays_valid(
    start_daemon: Callable[..., Daemon], make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    daemon = start_daemon("--substituters", upstream.url)
    nar = trees.nar(TreeFile(noise(SIZE, "large")))
    path = upstream.publish(daemon.store_dir, "large", nar)
    url = nar_of(daemon, path)
    upstream.gate.clear()
    with daemon.connect() as client:
        client.sendall(f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        daemon.kill()
        with suppress(OSError):
            while client.recv(1 << 20):
                pass
    upstream.gate.set()
    daemon.start()
    assert daemon.paths() == []
    assert daemon.get(url).body == nar
    assert daemon.paths() == [path.absolute(daemon.store_dir)]


def test_a_client_that_reads_nothing_costs_little_and_stops_nobody(
    start_daemon: Callable[..., Daemon], make_upstream: Callable[..., Upstream]
) -> None:
    upstream = make_upstream()
    daemon = start_daemon("--substituters", upstream.url)
    nar = trees.nar(TreeFile(noise(8 * SIZE, "larger")))
    path = upstream.publish(daemon.store_dir, "larger", nar)
    url = nar_of(daemon, path)
    before = daemon.most_memory()
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.settimeout(20)
        idle.connect(("127.0.0.1", daemon.port))
        idle.sendall(f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert idle.recv(12) == b"HTTP/1.1 200"
        assert hashlib.sha256(daemon.get(url).body).digest() == hashlib.sha256(nar).digest()
        grown = daemon.most_memory() - before
        print("memory grown by, MiB", grown >> 20)
        assert grown < 150 << 20
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        got = bytearray()
        while b"\r\n\r\n" not in got:
            got += idle.recv(1 << 20)
        body = bytes(got).partition(b"\r\n\r\n")[2]
        digest, size = hashlib.sha256(body), len(body)
        while size < len(nar):
            piece = idle.recv(1 << 20)
            assert piece
            digest.update(piece)
            size += len(piece)
        assert digest.digest() == hashlib.sha256(nar).digest()
    assert upstream.nars_asked == 1


@pytest.mark.parametrize("question", ["path-info -r", "build --dry-run"])
def test_nix_asks_for_2000_paths_of_an_upstream_and_nothing_is_fetched(
    nix: Nix,
    start_daemon: Callable[..., Daemon],
    make_upstream: Callable[..., Upstream],
    question: str,
) -> None:
    upstream = make_upstream(LATENCY)
    daemon = start_daemon("--substituters", upstream.url)
    nar = trees.nar(TreeFile(b"leaf"))
    leaves = [upstream.publish(daemon.store_dir, f"leaf-{number}", nar) for number in range(1999)]
    top = upstream.publish(daemon.store_dir, "top", nar, *leaves).absolute(daemon.store_dir)
    begun = time.monotonic()
    if question == "path-info -r":
        told = nix("nix", "path-info", "-r", "--store", daemon.url, top)
    else:
        # As for `nix build --dry-run` of a derivation with this output.
        options = f"substituters = {daemon.url}\ntrusted-public-keys = {KEY.public}\n"
        nix.environment["NIX_CONFIG"] = options
        run = nix.run("nix", "build", "--dry-run", top)
        told = run.stdout + run.stderr
        assert run.returncode == 0, told
    seconds = time.monotonic() - begun
    print(f"{question}: {seconds:.2f} s")
    assert len(set(re.findall(r"leaf-\d+", told))) == 1999
    assert upstream.nars_asked == 0
    assert len(upstream.asked) <= 2 * 2001, "once a worker"
    assert daemon.paths() == []
    assert seconds < 30, "generous: this machine may have other work"


BUILD = """
let
  lib = sh "lib" "mkdir $out; echo lib > $out/lib";
in
sh "app" "mkdir -p $out/bin; echo ${lib} $out > $out/bin/app"
"""


class Directory(ThreadingHTTPServer):
    """Serves a directory, and notes what is asked for."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        asked = self.asked = []  # type: list[str]

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_request(self, code: object = "-", size: object = "-") -> None:
                asked.append(self.path)

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(directory)))


def test_nix_pushes_what_the_upstream_has_without_a_download_and_it_is_ours_then(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(str(KEY))
    (tmp_path / "upstream").mkdir()
    [app] = nix.build(BUILD)
    closure = sorted(nix("nix-store", "-qR", app).splitlines())
    nix.copy_to(f"file://{tmp_path}/upstream?secret-key={tmp_path}/secret", app)
    with Directory(tmp_path / "upstream") as upstream:
        thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{upstream.server_port}?trusted-public-keys={KEY.public}"
            daemon = start_daemon("--substituters", url)
            assert daemon.get(f"/{Path(app).name[:32]}.narinfo").status == 200
            # On the usual route, Nix finds that nothing has to be pushed. Nothing is fetched either.
            nix.with_own_cache().copy_to(daemon.url, app)
            assert daemon.paths() == []
            nix.with_own_cache().copy_to(f"{daemon.url}/push", app)
            assert sorted(daemon.paths()) == closure
            # Our own copies know the route as well.
            second = start_daemon("--substituters", url, name="second")
            source = f"file://{tmp_path}/upstream?trusted-public-keys={KEY.public}"
            target = f"connect+http://127.0.0.1:{second.port}/push"
            second.program("copy", "-q", "--store-dir", second.store_dir, "--from", source, "--to", target, "--all")
            assert sorted(second.paths()) == closure
            assert not [path for path in upstream.asked if path.startswith("/nar/")]
        finally:
            upstream.shutdown()
            thread.join()
    # Without the upstream, all of it is there; and by the push route as well.
    for substituter in (daemon.url, f"{daemon.url}/push"):
        client = other_nix(f"substituters = {substituter}\nrequire-sigs = false")
        client("nix-store", "-r", app)
        assert sorted(client("nix-store", "-qR", app).splitlines()) == closure
    assert daemon.is_well()


def test_nix_substitutes_what_was_not_fetched_from_a_daemon_that_signs_by_our_key_alone(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Clients that trust the daemon's key alone need its signature: so the narinfo waits for the NAR. They may choose otherwise."""
    (tmp_path / "secret").write_text(str(KEY))
    own = SecretKey.generate("own-1")
    (tmp_path / "own").write_text(str(own))
    (tmp_path / "own").chmod(0o600)
    [app] = nix.build(BUILD)
    cache = f"file://{tmp_path}/upstream"
    nix.copy_to(f"{cache}?secret-key={tmp_path}/secret", app)
    options = ("--substituters", f"{cache}?trusted-public-keys={KEY.public}", "--signing-key-file", tmp_path / "own")
    for more, trusted in (((), own.public), (("--upstream-narinfos", "at-once"), KEY.public)):
        daemon = start_daemon(*options, *more, name=f"daemon-{trusted.name}")
        client = other_nix(f"substituters = {daemon.url}\ntrusted-public-keys = {trusted}\nrequire-sigs = true")
        client("nix-store", "-r", app)
        daemon.stop()

"""A daemon before a binary cache that Nix made: what it lacks it fetches from there, once, whoever asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import TVIX_STORE, Program
from tests.http.daemon import Daemon
from tests.http.nix import PRELUDE, Nix
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.signature import SecretKey
from tvix_store.testing import trees

COMPRESSIONS = ("none", "gzip", "bzip2", "xz", "zstd", "br", "lz4", "lzip")
BUILD = """
let
  lib = sh "lib" "mkdir $out; echo ${toString (builtins.genList (n: n) 20000)} > $out/numbers; ln -s numbers $out/link";
in
sh "app" "mkdir -p $out/bin; echo ${lib} $out > $out/bin/app; chmod +x $out/bin/app; : > $out/empty"
"""


class StaticServer(ThreadingHTTPServer):
    """Serves a directory, and notes what is asked for."""

    def __init__(self, directory: Path) -> None:
        asked = self.asked = []  # type: list[str]
        gate = self.gate = threading.Event()
        gate.set()

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def copyfile(self, source: Any, outputfile: Any) -> None:
                """The first half of a NAR comes at once, the rest when the gate is open."""
                if self.path.startswith("/nar/"):
                    outputfile.write(source.read(os.fstat(source.fileno()).st_size // 2))
                    gate.wait(30)
                super().copyfile(source, outputfile)

            def log_request(self, code: object = "-", size: object = "-") -> None:
                asked.append(self.path)

            def log_message(self, *arguments: object) -> None:
                pass

        self.daemon_threads = True
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(directory)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[StaticServer]:
    """The cache in the directory `upstream`."""
    (tmp_path / "upstream").mkdir()
    with StaticServer(tmp_path / "upstream") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def public_key(nix: Nix, tmp_path: Path) -> str:
    """That of the secret key in the file `secret`."""
    secret = SecretKey.generate("upstream-1")
    (tmp_path / "secret").write_text(str(secret))
    return str(secret.public)


def upload(nix: Nix, tmp_path: Path, *paths: str, compression: str = "xz") -> None:
    nix.copy_to(f"file://{tmp_path}/upstream?compression={compression}&secret-key={tmp_path}/secret", *paths)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nix_substitutes_through_the_daemon_what_the_cache_has(
    nix: Nix,
    other_nix: Callable[..., Nix],
    start_daemon: Callable[..., Daemon],
    upstream: StaticServer,
    public_key: str,
    tmp_path: Path,
    compression: str,
) -> None:
    [app] = nix.build(BUILD)
    closure = nix("nix-store", "-qR", app).splitlines()
    upload(nix, tmp_path, app, compression=compression)
    daemon = start_daemon("--substituters", upstream.url, "--substituter-public-keys", public_key)
    client = other_nix(f"substituters = {daemon.url}\ntrusted-public-keys = {public_key}\nrequire-sigs = true")
    client("nix-store", "-r", app)
    assert client("nix-store", "-qR", app).splitlines() == closure
    for path in closure:
        assert trees.read(client.real(path)) == trees.read(nix.real(path))
    client("nix", "store", "verify", "--no-trust", *closure)
    assert sorted(daemon.paths()) == sorted(closure)
    nars = [path for path in upstream.asked if path.startswith("/nar/")]
    assert len(nars) == len(set(nars)) == len(closure)
    assert daemon.is_well()
    assert "ERROR" not in daemon.log


def test_one_fetch_serves_all_clients_of_all_workers(
    nix: Nix, start_daemon: Callable[..., Daemon], upstream: StaticServer, public_key: str, tmp_path: Path
) -> None:
    """Over HTTP and gRPC, each on a connection of its own."""
    (tmp_path / "tree").write_bytes(bytes(range(256)) * 200_000)
    path = nix.add(tmp_path / "tree")
    upload(nix, tmp_path, path)
    daemon = start_daemon("--substituters", f"{upstream.url}?trusted-public-keys={public_key}")
    nar = trees.nar(trees.read(nix.real(path)))

    def over_http(_: int) -> bool:
        return daemon.get("/" + NarInfo.parse(daemon.narinfo(path), daemon.store_dir).url).body == nar

    def over_grpc(_: int) -> bool:
        options = ("--store", f"grpc+http://127.0.0.1:{daemon.port}", "--store-dir", daemon.store_dir)
        return (
            path.encode()
            in subprocess.run([TVIX_STORE, "path-info", "get", path, *options], capture_output=True, check=True).stdout
        )

    with ThreadPoolExecutor(20) as clients:
        answers = [clients.submit(ask, n) for n in range(4) for ask in (over_http, over_http, over_http, over_grpc)]
        assert all(answer.result() for answer in answers)
    assert sum(asked.startswith("/nar/") for asked in upstream.asked) == 1


def test_workers_killed_in_the_middle_of_a_fetch_leave_it_to_others(
    nix: Nix, start_daemon: Callable[..., Daemon], public_key: str, upstream: StaticServer, tmp_path: Path
) -> None:
    (tmp_path / "tree").write_bytes(os.urandom(1 << 20))
    path = nix.add(tmp_path / "tree")
    upload(nix, tmp_path, path, compression="none")
    daemon = start_daemon("--substituters", upstream.url, "--substituter-public-keys", public_key)
    nar = "/" + NarInfo.parse(daemon.narinfo(path), daemon.store_dir).url
    upstream.gate.clear()

    def ask() -> None:
        with suppress(OSError, HTTPException):
            daemon.get(nar)

    client = threading.Thread(target=ask)
    client.start()
    while not any(asked.startswith("/nar/") for asked in upstream.asked):
        time.sleep(0.01)
    for pid in daemon.workers:
        os.kill(pid, signal.SIGKILL)
    client.join()
    assert daemon.paths() == []
    upstream.gate.set()
    assert daemon.get(nar).body == trees.nar(trees.read(nix.real(path)))
    assert daemon.paths() == [path]


def test_without_the_key_nothing_comes(
    nix: Nix, start_daemon: Callable[..., Daemon], upstream: StaticServer, public_key: str, tmp_path: Path
) -> None:
    (tmp_path / "tree").write_bytes(b"tree")
    path = nix.add(tmp_path / "tree")
    upload(nix, tmp_path, path)
    stranger = SecretKey.generate("upstream-1").public
    daemon = start_daemon("--substituters", upstream.url, "--substituter-public-keys", str(stranger))
    assert daemon.get(f"/{Path(path).name[:32]}.narinfo").status == 404
    assert f"substituter {upstream.url} is refused: path info of {Path(path).name}: bad signature by upstream-1" in daemon.log
    assert daemon.paths() == []


def test_what_is_pushed_is_there_whatever_was_asked_before(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], upstream: StaticServer, public_key: str
) -> None:
    """A pusher asks for everything before it pushes, at both workers."""
    [app] = nix.build(BUILD)
    daemon = start_daemon("--substituters", upstream.url, "--substituter-public-keys", public_key)
    for _ in range(8):
        assert daemon.get(f"/{Path(app).name[:32]}.narinfo").status == 404
    nix.copy_to(daemon.url, app)
    for _ in range(8):
        assert daemon.get(f"/{Path(app).name[:32]}.narinfo").status == 200
    client = other_nix(f"substituters = {daemon.url}\nrequire-sigs = false")
    client("nix-store", "-r", app)


def test_an_upstream_that_is_away_stops_nothing(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], public_key: str, unused_tcp_port: int
) -> None:
    [app] = nix.build(BUILD)
    daemon = start_daemon("--substituters", f"http://127.0.0.1:{unused_tcp_port}", "--substituter-public-keys", public_key)
    nix.copy_to(daemon.url, app)
    other_nix(f"substituters = {daemon.url}\nrequire-sigs = false")("nix-store", "-r", app)
    assert "is down: " in daemon.log


def test_a_read_only_daemon_is_filled_all_the_same(
    nix: Nix, start_daemon: Callable[..., Daemon], upstream: StaticServer, public_key: str, tmp_path: Path
) -> None:
    (tmp_path / "tree").write_bytes(b"tree")
    path = nix.add(tmp_path / "tree")
    upload(nix, tmp_path, path)
    daemon = start_daemon("--read-only", "--substituters", upstream.url, "--substituter-public-keys", public_key)
    nar = "/" + NarInfo.parse(daemon.narinfo(path), daemon.store_dir).url
    assert daemon.paths() == []
    assert daemon.get(nar).body == trees.nar(trees.read(nix.real(path)))
    assert daemon.paths() == [path]


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_daemon_is_filled_from_another_daemon(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], public_key: str, tmp_path: Path, compression: str
) -> None:
    [app] = nix.build(BUILD)
    far = start_daemon("--signing-key-file", tmp_path / "secret", "--nar-compression", compression, name="far")
    nix.copy_to(far.url, app)
    near = start_daemon("--substituters", far.url, "--substituter-public-keys", public_key, name="near")
    client = other_nix(f"substituters = {near.url}\ntrusted-public-keys = {public_key}\nrequire-sigs = true")
    client("nix-store", "-r", app)
    assert sorted(near.paths()) == sorted(far.paths())
    assert "ERROR" not in near.log


FLOATING = """
let
  floating = name: script: sh' name script {
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
  };
  lib = floating "lib" "echo built lib; echo lib > $out";
in
floating "app" "echo built app; echo ${lib} > $out"
"""


def test_a_content_addressed_closure_comes_through_the_daemon(
    nix: Nix, other_nix: Callable[..., Nix], start_daemon: Callable[..., Daemon], public_key: str, tmp_path: Path
) -> None:
    """Realisations, signed where they were made, and logs: from an upstream, which is another daemon, without a build."""
    nix.environment["NIX_CONFIG"] = f"secret-key-files = {tmp_path}/secret"
    nix.build(FLOATING)
    far = start_daemon(name="far")
    nix("nix", "copy", "--to", far.url, "--impure", "--expr", PRELUDE + FLOATING)
    near = start_daemon("--read-only", "--substituters", far.url, "--substituter-public-keys", public_key, name="near")
    client = other_nix(f"substituters = {near.url}\ntrusted-public-keys = {public_key}\nrequire-sigs = true\nmax-jobs = 0")
    [app] = client.build(FLOATING)
    log = f"/log/{Path(app).name}.drv"
    far.put(log, b"built app\n")
    assert (near.head(log).headers["content-length"], near.get(log).body) == ("10", b"built app\n")
    far.stop()
    again = other_nix(f"substituters = {near.url}\ntrusted-public-keys = {public_key}\nrequire-sigs = true\nmax-jobs = 0")
    assert again.build(FLOATING) == [app]
    assert "ERROR" not in near.log


def test_debug_information_of_the_cache_leads_to_a_nar_that_was_fetched(
    nix: Nix, start_daemon: Callable[..., Daemon], upstream: StaticServer, public_key: str, tmp_path: Path
) -> None:
    build_id = "0123456789abcdef" * 2 + "01234567"
    member = f"lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
    [path] = nix.build(f'sh "debug" "mkdir -p $out/{Path(member).parent}; echo symbols > $out/{member}"')
    nix.copy_to(f"file://{tmp_path}/upstream?index-debug-info=true&secret-key={tmp_path}/secret", path)
    daemon = start_daemon("--substituters", upstream.url, "--substituter-public-keys", public_key)
    assert json.loads(daemon.get(f"/debuginfo/{build_id}").body)["archive"].endswith(".nar.xz")
    assert daemon.get("/" + NarInfo.parse(daemon.narinfo(path), daemon.store_dir).url).status == 200
    told = json.loads(daemon.get(f"/debuginfo/{build_id}.debug").body)
    assert told["member"] == member
    assert daemon.get(told["archive"].removeprefix("..")).body == trees.nar(trees.read(nix.real(path)))
    assert "ERROR" not in daemon.log


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ("ftp://cache.example", "not the address of a binary cache: 'ftp://cache.example' (expected http://… or https://…)"),
        ("http://a.example?trusted-public-keys=a:b http://b.example", "http://a.example: trusted-public-keys: not a public key"),
        ("http://cache.example", "http://cache.example: there is no key to check its signatures with"),
    ],
)
def test_a_daemon_with_a_wrong_substituter_does_not_start(tmp_path: Path, urls: str, reason: str) -> None:
    program = Program(tmp_path)
    by_option = program.run("daemon", "-l", "127.0.0.1:0", "--substituters", urls)
    environment = program.environment | {"TVIX_STORE_SUBSTITUTERS": urls}
    by_variable = program.run("daemon", "-l", "127.0.0.1:0", environment=environment)
    assert by_option == by_variable
    assert by_option.code == 3
    assert reason in by_option.error
    assert by_option.error.count("\n") == 1


def test_a_daemon_says_once_what_of_its_substituters_it_does_not_like(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    url = "http://me:secret@127.0.0.1:9?trusted=1&want-mass-query=1"
    said = start_daemon("--substituters", url).log
    assert said.count("substituter http://127.0.0.1:9: ignored, since it means nothing here: want-mass-query") == 1
    assert said.count("ps shows every user of this machine the password in an option") == 1
    program = Program(tmp_path)
    environment = program.environment | {"TVIX_STORE_SUBSTITUTERS": url}
    key = str(SecretKey.generate("a-1").public)
    wrong = program.run(
        "daemon", "-l", "127.0.0.1:0", "--require-signatures", "--trusted-public-keys", key, environment=environment
    )
    assert wrong.code == 3
    assert "http://127.0.0.1:9: its unsigned paths would be taken, but signatures are required" in wrong.error
    assert "ps shows" not in wrong.error
    assert "secret" not in said + wrong.error

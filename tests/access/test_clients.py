"""Real clients with tokens: Nix, curl, grpcurl, and our own over gRPC and Connect; tokens that come and go under load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import programs
from tests.access.issuer import Issuer, Key
from tests.access.tokens import Tokens, bearer
from tests.cli.program import Program
from tests.http.daemon import Daemon, nar_name, wait_for_tokens
from tests.http.nix import Nix
from tests.nginx import nginx_before
from tvix_store.model.digest import Digest
from tvix_store.model.grant import Scope
from tvix_store.nar import tokens as nar_tokens
from tvix_store.protocol.blobs import encode_digest
from tvix_store.protocol.dialects import SETTINGS_SERVICE


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture
def closed(start_daemon: Callable[..., Daemon], tokens: Tokens, tmp_path: Path) -> Daemon:
    return start_daemon("--private", "--token-file", tmp_path / "tokens.json")


def netrc(nix: Nix, secret: str) -> tuple[str, ...]:
    """Options that let Nix send a token."""
    file = nix.directory / f"netrc-{secret[-9:]}"
    file.write_text(f"machine 127.0.0.1 login any password {secret}\n")
    return "--option", "netrc-file", str(file)


def test_nix_pushes_and_pulls_with_a_netrc_file(
    start_daemon: Callable[..., Daemon], tokens: Tokens, tmp_path: Path, nix: Nix
) -> None:
    daemon = start_daemon("--private", "--token-file", tmp_path / "tokens.json")
    pull, push = tokens.make(Scope.PULL), tokens.make(Scope.PUSH)
    wait_for_tokens()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(200_000))
    path = nix.add(tmp_path / "tree")
    other = Nix(tmp_path / "other", nix.store_dir, "require-sigs = false")
    unknown = r"401|does not appear to be a binary cache"  # so says Nix 2.8 where it may not read nix-cache-info
    for options, line in (
        ((), unknown),
        (netrc(nix, push[:-1]), unknown),
        (netrc(nix, pull), "this needs a token with the scope push"),
    ):
        done = nix.run("nix", "copy", "--to", daemon.url, path, *options)
        assert done.returncode != 0
        assert re.search(line, done.stderr)
        assert push[20:60] not in done.stderr
    assert daemon.paths() == []
    nix("nix", "copy", "--to", daemon.url, path, *netrc(nix, push))
    assert daemon.paths() == [path]
    assert other.run("nix", "copy", "--from", daemon.url, path).returncode != 0
    for each in (pull, push):
        other = Nix(tmp_path / each[:17], nix.store_dir, "require-sigs = false")
        other("nix", "copy", "--from", daemon.url, path, *netrc(other, each))
        assert other.real(path).joinpath("file").read_bytes() == (tmp_path / "tree/file").read_bytes()
    assert not any(secret[20:60] in daemon.log for secret in (pull, push))


@pytest.mark.parametrize(("compression", "size"), [("none", 5_000_000), ("xz", 1_000_000)])  # Nix takes seconds for xz
def test_nix_without_a_token_reads_a_public_store_and_is_told_when_it_pushes(
    start_daemon: Callable[..., Daemon], tokens: Tokens, tmp_path: Path, nix: Nix, compression: str, size: int
) -> None:
    daemon = start_daemon("--token-file", tmp_path / "tokens.json")
    push = tokens.make(Scope.PUSH)
    wait_for_tokens()
    for name in ("here", "new"):
        (tmp_path / name).write_bytes(os.urandom(size))
    here, new = nix.add(tmp_path / "here"), nix.add(tmp_path / "new")
    nix("nix", "copy", "--to", f"{daemon.url}?compression={compression}", here, *netrc(nix, push))
    for options, line in (((), "this needs a token with the scope push"), (netrc(nix, push[:-1]), "401|not appear to be a binary")):
        done = nix.run("nix", "copy", "--to", f"{daemon.url}?compression={compression}", new, *options, timeout=60)
        assert done.returncode != 0
        assert re.search(line, done.stderr), done.stderr
    assert daemon.paths() == [here]
    other = Nix(tmp_path / "other", nix.store_dir, "require-sigs = false")
    other("nix", "copy", "--from", daemon.url, here)
    assert other.real(here).read_bytes() == (tmp_path / "here").read_bytes()


def test_our_client_has_its_token_in_the_address_or_in_a_netrc_file(closed: Daemon, tokens: Tokens, tmp_path: Path) -> None:
    pull, push = tokens.make(Scope.PULL), tokens.make(Scope.PUSH)
    wait_for_tokens()
    (tmp_path / "file").write_text("content of a file\n")
    client = Program(tmp_path)
    client.environment |= {"NIX_STORE_DIR": closed.store_dir}
    for scheme in ("grpc+http", "connect+http"):
        plain = f"{scheme}://127.0.0.1:{closed.port}"
        for user, line in (("", "needs a token with the scope"), (f"any:{push[:-1]}@", "is not one of this store")):
            ended = client.run("--store", plain.replace("://", f"://{user}"), "list")
            assert ended.code == 8, ended
            assert line in ended.error
            assert ended.error.count("\n") == 1
            assert push[20:60] not in ended.error
        client.environment["TVIX_STORE"] = plain.replace("://", f"://any:{quote(push)}@")
        path = client("import", "file", "--name", scheme)
        client.environment["TVIX_STORE"] = plain.replace("://", f"://any:{pull}@")
        assert path in client("list").splitlines()
        ended = client.run("import", "file", "--name", "denied")
        assert ended.code == 8
        assert "has the scope pull; this needs a token with the scope push" in ended.error
        assert ended.error.count("\n") == 1
        client.environment["TVIX_STORE"] = plain
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login any password {push}\n")
        client.environment["NETRC"] = str(netrc)
        assert client("cat", path) == "content of a file"
        client("import", "file", "--name", f"{scheme}-2")
        del client.environment["NETRC"]
        assert client.run("list").code == 8
    assert len(closed.log.splitlines()) < 12
    assert not any(secret[20:60] in closed.log for secret in (pull, push))


@pytest.mark.parametrize("scheme", ["grpc+http", "connect+http"])
def test_a_redirect_takes_no_token_elsewhere(tmp_path: Path, start_issuer: Callable[..., Issuer], scheme: str) -> None:
    """A server that sends our client on does not make it tell its token to somebody else."""
    here, elsewhere = start_issuer(), start_issuer()
    here.status = 307
    here.headers["Location"] = f"{elsewhere.url}/rpc/v1/x"
    client = Program(tmp_path)
    client.environment["TVIX_STORE"] = f"{scheme}://any:tvix_secret@{here.url.removeprefix('http://')}"
    ended = client.run("list")
    assert ended.code != 0
    assert "tvix_secret" not in ended.error
    assert elsewhere.asked == []


def test_grpcurl_sends_a_token_as_metadata(closed: Daemon, tokens: Tokens) -> None:
    grpcurl = programs.require("grpcurl")
    pull = tokens.make(Scope.PULL)
    wait_for_tokens()
    base = [grpcurl, "-plaintext", f"127.0.0.1:{closed.port}"]
    shown = [grpcurl, "-plaintext", "-H", f"authorization: Bearer {pull}", f"127.0.0.1:{closed.port}"]
    refused = subprocess.run([*base, "list"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "Unauthenticated" in refused.stderr
    listed = subprocess.run([*shown, "list"], capture_output=True, text=True, check=True).stdout
    assert SETTINGS_SERVICE in listed
    told = subprocess.run([*shown, f"{SETTINGS_SERVICE}/Get"], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)
    health = subprocess.run([*base[:-1], base[-1], "grpc.health.v1.Health/Check"], capture_output=True, text=True, check=False)
    assert "Unauthenticated" in health.stderr  # grpcurl asks by reflection what it is to send


def test_curl_sends_a_token_in_both_ways(closed: Daemon, tokens: Tokens, tmp_path: Path) -> None:
    curl = programs.require("curl")
    pull = tokens.make(Scope.PULL)
    wait_for_tokens()
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login any password {pull}\n")
    (tmp_path / "header").write_text(f"Authorization: Bearer {pull}\n")
    for options in (["--netrc-file", tmp_path / "netrc"], ["--header", f"@{tmp_path / 'header'}"]):
        done = subprocess.run([curl, "-sS", *options, f"{closed.url}/nix-cache-info"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("StoreDir: ")
    done = subprocess.run([curl, "-sS", "-i", f"{closed.url}/nix-cache-info"], capture_output=True, text=True, check=True)
    assert "401" in done.stdout.splitlines()[0]
    assert done.stdout.lower().count("www-authenticate") == 2


def test_a_job_of_a_ci_system_pushes(start_daemon: Callable[..., Daemon], issuer: Issuer, key: Key, tmp_path: Path) -> None:
    rule = f"issuer={issuer.url} audience=cache scope=push sub=repo:team/*:ref:refs/heads/main"
    daemon = start_daemon("--oidc-rule", rule)
    client = Program(tmp_path)
    client.environment |= {"NIX_STORE_DIR": daemon.store_dir}
    (tmp_path / "file").write_text("built by a job\n")
    client.environment["TVIX_STORE"] = f"grpc+http://job:{issuer.token(key)}@127.0.0.1:{daemon.port}"
    path = client("import", "file")
    client.environment["TVIX_STORE"] = f"grpc+http://127.0.0.1:{daemon.port}"
    assert client("cat", path) == "built by a job"  # everybody reads
    assert client.run("import", "file", "--name", "other").code == 8  # and nobody else writes
    token = issuer.token(key, sub="repo:team/app:ref:refs/heads/mine")
    client.environment["TVIX_STORE"] = f"grpc+http://job:{token}@127.0.0.1:{daemon.port}"
    ended = client.run("import", "file", "--name", "other")
    assert ended.code == 8
    assert "no rule lets" in ended.error
    assert token[:50] not in ended.error + daemon.log


def test_tokens_change_under_load_without_an_error_and_within_a_second(
    start_daemon: Callable[..., Daemon],
    tokens: Tokens,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    daemon = start_daemon("--private", "--token-file", tmp_path / "tokens.json")
    lasting = tokens.make(Scope.PULL)
    wait_for_tokens()
    over = threading.Event()
    statuses: dict[int, int] = {}

    def load() -> None:
        while not over.wait(0.01):
            status = daemon.request("GET", "/nix-cache-info", headers=bearer(lasting)).status
            statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    latest = 0.0
    try:
        for _ in range(10):
            secret = tokens.make(Scope.PULL)
            latest = max(latest, until(daemon, secret, 200))
            tokens.revoke(secret)
            latest = max(latest, until(daemon, secret, 401))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    print(f"requests: {statuses}, a change was in force after at most {latest:.2f} s")
    record_property("errors", sum(count for status, count in statuses.items() if status != 200))
    assert set(statuses) == {200}
    # A quarter of a second is the design, a second what is promised; the machine of the tests may be busy.
    assert latest < 5


def until(daemon: Daemon, secret: str, wanted: int) -> float:
    """Seconds until all workers answer with a status."""
    began = time.monotonic()
    in_a_row, first = 0, 0.0
    while in_a_row < 12:  # each connection may reach either worker
        if daemon.request("GET", "/nix-cache-info", headers=bearer(secret)).status == wanted:
            first = first if in_a_row else time.monotonic() - began
            in_a_row += 1
        else:
            in_a_row = 0
        assert time.monotonic() - began < 30
    return first


def test_with_a_push_token_other_machines_are_let_in(tmp_path: Path) -> None:
    program = Program(tmp_path)
    refused = program.run("daemon", "-l", "0.0.0.0:0", "--workers", "1")
    assert refused.code == 3
    assert "tvix-store token create" in refused.error
    program("token", "create", "--scope", "push", "--quiet")
    running = program.start("daemon", "-l", "0.0.0.0:0", "--workers", "1")
    try:
        assert running.stderr is not None
        ready = next(line for line in iter(running.stderr.readline, b"") if line.startswith(b"READY "))
        assert re.match(rb"READY 0\.0\.0\.0:\d+", ready)
    finally:
        running.terminate()
        running.communicate()


def test_a_file_that_others_may_write_is_warned_of(start_daemon: Callable[..., Daemon], tokens: Tokens, tmp_path: Path) -> None:
    tokens.make(Scope.PULL)
    (tmp_path / "tokens.json").chmod(0o666)
    daemon = start_daemon("--token-file", tmp_path / "tokens.json")
    assert "tokens.json has mode 666: others than its owner may make tokens" in daemon.log


def test_no_process_shows_a_token(closed: Daemon, tokens: Tokens, tmp_path: Path) -> None:
    """What `ps` shows of a daemon in front of the private one, which gets its token from the environment."""
    push = tokens.make(Scope.PUSH)
    wait_for_tokens()
    front = Daemon(tmp_path / "front", store_dir=closed.store_dir)
    front.program.environment["TVIX_STORE"] = f"grpc+http://any:{push}@127.0.0.1:{closed.port}"
    front.start()
    try:
        assert front.request("GET", "/nix-cache-info").status == 200
        for pid in front.workers:
            for file in ("cmdline", "comm", "status"):
                assert push[20:60] not in Path(f"/proc/{pid}/{file}").read_text()
        assert push[20:60] not in front.log
    finally:
        front.stop()


async def test_an_upload_that_is_refused_is_told_before_its_end(closed: Daemon) -> None:
    """A client that sends a large body hears of the 401 at once, and the connection does not stay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", closed.port)
    try:
        head = f"PUT /nar/{'0' * 52}.nar HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 40}\r\n\r\n"
        writer.write(head.encode() + bytes(100_000))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert answer.split()[1] == b"401"
    finally:
        writer.transport.abort()


def test_a_cache_between_gives_strangers_nothing_of_a_private_store(closed: Daemon, tokens: Tokens, tmp_path: Path) -> None:
    """nginx keeps answers whatever `Authorization` they were for, unless they say that they are private."""
    push = tokens.make(Scope.PUSH)
    wait_for_tokens()
    nar = nar_tokens.MAGIC + nar_tokens.file_start(3, executable=False) + b"abc" + nar_tokens.file_end(3)
    assert closed.request("PUT", nar_name(nar), nar, bearer(push)).status == 201
    message = urlsafe_b64encode(encode_digest(Digest.of(b"abc"))).rstrip(b"=").decode()
    blob = f"/rpc/v1/tvix.store.v1.BlobService/Get?connect=v1&encoding=proto&base64=1&message={message}"
    with nginx_before(f"127.0.0.1:{closed.port}", tmp_path / "nginx") as nginx:
        for path in (nar_name(nar), blob, "/nix-cache-info"):
            for headers, status in ((bearer(push), 200), ({}, 401), (bearer(push), 200), (bearer("wrong"), 401)):
                connection = HTTPConnection(nginx.address, timeout=20)
                connection.request("GET", f"/store{path}", headers=headers)
                answer = connection.getresponse()
                answer.read()
                connection.close()
                assert answer.status == status, (path, headers)
        assert not any(line.endswith("HIT") for line in nginx.log)

"""The proxies of docs/how-to/nginx.md and caddy.md, in front of a daemon that is set up as these pages say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.access.tokens import Tokens, bearer
from tests.cli.program import Program
from tests.how_to.proxies import NAME, Proxy, block, caddy_of_the_page, nginx_of_the_page
from tests.http.daemon import Daemon, nar_name
from tests.http.nix import Nix
from tvix_store.model.grant import Scope
from tvix_store.rpc.health import Serving
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

PROXIES = {"nginx": nginx_of_the_page, "caddy": caddy_of_the_page}
MIB = 1 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("behind")
    (directory / "config.toml").write_text(block("nginx.md", "toml"))
    daemon = Daemon(directory)
    daemon.program.environment["TVIX_STORE_CONFIG"] = str(directory / "config.toml")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def token(daemon: Daemon) -> str:
    return Tokens(daemon.program.store / "tokens.json").make(Scope.PUSH)


@pytest.fixture(scope="module", params=list(PROXIES))
def proxy(request: pytest.FixtureRequest, daemon: Daemon, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with PROXIES[request.param](daemon.port, tmp_path_factory.mktemp("proxy") / "proxy") as proxy:
        yield proxy


def ask(proxy: Proxy, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = proxy.connect()
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_clients_reach_the_daemon_by_its_public_name(proxy: Proxy) -> None:
    assert ask(proxy, "GET", "/nix-cache-info", Host=f"{NAME}:{proxy.port}")[0] == 200


def test_a_nar_of_more_than_a_mib_is_pushed_with_the_token_and_not_without(proxy: Proxy, token: str) -> None:
    nar = trees.nar(TreeFile(noise(3 * MIB, f"pushed through {proxy.port}")))
    assert ask(proxy, "PUT", nar_name(nar), nar)[0] == 401
    assert ask(proxy, "PUT", nar_name(nar), nar, **bearer(token))[0] == 201


def test_nix_pushes_and_fetches(proxy: Proxy, token: str, tmp_path: Path) -> None:
    nix = Nix(tmp_path / "nix", Path("/nix/store"))
    (tmp_path / "large").write_bytes(noise(3 * MIB, f"pushed by Nix through {proxy.port}"))
    (tmp_path / "netrc").write_text(f"machine localhost login any password {token}\n")
    nix.environment |= {"NIX_SSL_CERT_FILE": str(proxy.ca)}
    path = nix("nix-store", "--add", tmp_path / "large")
    url = f"https://localhost:{proxy.port}"
    nix("nix", "copy", "--option", "netrc-file", tmp_path / "netrc", "--to", f"{url}?compression=zstd", path)
    fetched = subprocess.run(
        ["nix", "copy", "--from", url, "--to", tmp_path / "other", path], env=nix.environment, capture_output=True, check=False
    )
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "other" / path[1:]).read_bytes() == (tmp_path / "large").read_bytes()


def test_our_client_imports_and_reads_over_grpc_with_the_token(proxy: Proxy, token: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    (tmp_path / "large").write_bytes(content := noise(3 * MIB, f"imported through {proxy.port}"))
    program.environment["TVIX_STORE"] = f"grpc+https://any:{token}@localhost:{proxy.port}?ca={proxy.ca}"
    path = program("import", "--quiet", tmp_path / "large")
    assert program.run("cat", path).output == content


@pytest.mark.parametrize("below", ["", "/push"])
def test_a_stream_of_answers_is_not_held_back(proxy: Proxy, below: str) -> None:
    """The first answer of a watch comes though the call goes on."""
    credentials = grpc.ssl_channel_credentials(proxy.ca.read_bytes())
    with grpc.secure_channel(f"localhost:{proxy.port}", credentials) as channel:
        call: Any = channel.unary_stream(f"{below}/grpc.health.v1.Health/Watch")
        watch = call(b"", timeout=20)
        assert next(watch) == bytes([8, Serving.SERVING])
        watch.cancel()


@pytest.mark.parametrize("proxy", ["nginx"], indirect=True)  # Caddy passes an answer on when the body has ended
def test_an_upload_is_not_held_back(proxy: Proxy, token: str) -> None:
    """The daemon refuses what is no NAR by its first bytes, long before the body ends."""
    connection = proxy.connect()
    connection.putrequest("PUT", nar_name(b"no NAR"))
    for name, value in {"Content-Length": str(100 * MIB), **bearer(token)}.items():
        connection.putheader(name, value)
    connection.endheaders(b"this is no NAR" * 10_000)
    assert connection.getresponse().status == 400
    connection.close()

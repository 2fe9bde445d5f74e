"""Behind TLS, Nix speaks HTTP/2, and sends all that it has to say over one connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.testing import trees

TLS = Path(__file__).parents[1] / "backends/tls"
OPTIONS = ("--tls-certificate", TLS / "localhost.pem", "--tls-key", TLS / "localhost.key")
EIGHT = (
    'map (n: sh "p${toString n}" "mkdir $out; head -c 3000000 /dev/urandom > $out/x; echo $out > $out/self") [ 1 2 3 4 5 6 7 8 ]'
)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(TLS / "localhost.pem"))


def test_eight_paths_are_pushed_and_fetched(start_daemon: Callable[..., Daemon], nix: Nix, other_nix: Callable[..., Nix]) -> None:
    daemon = start_daemon(*OPTIONS)
    url = f"https://localhost:{daemon.port}"
    paths = nix.build(EIGHT)
    nix.copy_to(f"{url}?compression=zstd", *paths)
    assert sorted(daemon.paths()) == sorted(paths)
    other = other_nix()
    other("nix-store", "-r", *paths, "--option", "substituters", url)
    assert all(trees.read(other.real(path)) == trees.read(nix.real(path)) for path in paths)


def test_a_refused_push_ends_and_shows_the_line(start_daemon: Callable[..., Daemon], nix: Nix) -> None:
    daemon = start_daemon(*OPTIONS, "--read-only")
    done = nix.run("nix", "copy", "--to", f"https://localhost:{daemon.port}?compression=none", *nix.build(EIGHT), timeout=30)
    assert done.returncode != 0
    assert "this cache is read-only" in done.stderr
    assert daemon.paths() == []


def test_with_tls_the_certificate_has_the_names(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*OPTIONS)
    connection = HTTPSConnection("localhost", daemon.port, context=ssl.create_default_context(cafile=str(TLS / "localhost.pem")))
    connection.request("GET", "/nix-cache-info", headers={"Host": "cache.example.org"})
    assert connection.getresponse().status == 200
    connection.close()

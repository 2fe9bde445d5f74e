"""`tvix-store push` to caches behind TLS whose authority only the environment names, as for Nix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.daemon import Daemon
from tests.private_nix import PrivateNix, Registered, built
from tvix_store.cli.program import run_program
from tvix_store.testing.trees import TreeFile

TLS = Path(__file__).parents[1] / "backends/tls"
VARIABLES = ("NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
PATH = built(1, "path")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    files = ("--tls-certificate", TLS / "localhost.pem", "--tls-key", TLS / "localhost.key")
    daemon = Daemon(tmp_path_factory.mktemp("cache"), "--workers", "1", *files)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [*(("https", variable) for variable in VARIABLES), *((scheme, VARIABLES[0]) for scheme in ("grpc+https", "connect+https"))],
)
def test_the_authorities_of_the_environment_are_trusted(
    daemon: Daemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scheme: str,
    variable: str,
) -> None:
    nix = PrivateNix(tmp_path / "nix")
    nix.register([Registered(PATH, TreeFile(b"content"))])
    for each in VARIABLES:
        monkeypatch.delenv(each, raising=False)
    push = ["push", "--nix-store", str(nix.root), "--to", f"{scheme}://localhost:{daemon.port}", PATH]
    assert run_program(push) == 7
    assert "verify failed" in capsys.readouterr().err
    monkeypatch.setenv(variable, str(TLS / "localhost.pem"))
    assert run_program(push) == 0, capsys.readouterr().err
    # What was chosen for Nix counts, whatever is set for all programs of a machine.
    for each in VARIABLES[VARIABLES.index(variable) + 1 :]:
        monkeypatch.setenv(each, "/nowhere")
    assert run_program(push) == 0

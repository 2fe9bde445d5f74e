"""A daemon, and Nix as its client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tests.http.upstream import Upstream


@pytest.fixture(scope="session")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that many tests share: with the default options, each with content of its own."""
    daemon = Daemon(tmp_path_factory.mktemp("shared"))
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons: options, and where `name` differs several at once. Their paths are in the store directory of `nix`."""
    with ExitStack() as running:

        def start(*options: str | Path, name: str = "daemon") -> Daemon:
            daemon = Daemon(tmp_path / name, *options, store_dir=tmp_path / "nix/store")
            running.callback(daemon.stop)
            daemon.start()
            return daemon

        yield start


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon with the default options."""
    return start_daemon()


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    """Nix with an empty store, where one builds."""
    return Nix(tmp_path / "nix", tmp_path / "nix/store")


@pytest.fixture
def other_nix(tmp_path: Path, nix: Nix) -> Callable[..., Nix]:
    """Makes more: empty stores for paths of the same names as those of `nix`, and lines for their nix.conf."""
    made = 0

    def make(configuration: str = "require-sigs = false") -> Nix:
        nonlocal made
        made += 1
        return Nix(tmp_path / f"nix-{made}", nix.store_dir, configuration)

    return make


@pytest.fixture
def make_upstream() -> Iterator[Callable[..., Upstream]]:
    """Starts caches over HTTP, whose answers come some seconds late."""
    running: list[tuple[Upstream, threading.Thread]] = []

    def make(latency: float = 0.0) -> Upstream:
        server = Upstream(latency)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        running.append((server, thread))
        thread.start()
        return server

    yield make
    for server, thread in running:
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()

"""`tvix-store copy` from a daemon as a binary cache, and what it does without one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import Program
from tests.cli.test_remote import daemon


@pytest.fixture
def versions(tvix_store: Program, tmp_path: Path) -> list[str]:
    """Two versions of a package in the store, whose only files share no chunks, but most of their bytes."""
    content = bytearray(random.Random(1).randbytes(300_000))
    paths = []
    for version in (1, 2):
        file = tmp_path / "file"
        content[::3000] = bytes([version]) * 100
        file.write_bytes(content)
        paths.append(tvix_store("import", "--name", f"package-1.{version}", file))
    return paths


@pytest.fixture
def cache(tvix_store: Program) -> Iterator[str]:
    """The address of a daemon with this store, as a binary cache."""
    with tvix_store.start("daemon", "--workers", "1", "--listen-address", "127.0.0.1:0") as running:
        assert running.stderr is not None
        yield f"nix+http://{running.stderr.readline().split()[1].decode()}?require-signatures=false"
        running.terminate()
        assert running.wait(30) == 0


@pytest.mark.parametrize(("option", "deltas"), [("--delta", 1), ("--no-delta", 0)])
def test_deltas_come_from_a_cache_if_they_are_wanted(
    tvix_store: Program, cache: str, versions: list[str], option: str, deltas: int
) -> None:
    old, new = versions
    copy = ("copy", "--from", cache, "--to", "./other", option, "--json")
    tvix_store(*copy, old)
    assert json.loads(tvix_store(*copy, new))["account"]["deltas"] == deltas


def test_a_copy_between_stores_loads_no_client_for_http(tvix_store: Program, versions: list[str], tmp_path: Path) -> None:
    del versions
    with daemon(tvix_store, tmp_path / "socket") as client:
        arguments = ["copy", "--to", client.environment["TVIX_STORE"], "--all"]
        code = f"import sys; from tvix_store.cli.program import run_program; run_program({arguments}); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], env=tvix_store.environment, capture_output=True, text=True, check=True)
    assert "aiohttp" not in done.stdout.split()

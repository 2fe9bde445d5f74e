"""Failures that are not the client's: lines for the operator, and no paths of the server for clients."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.http.daemon import Daemon, nar_name
from tests.observe.test_daemon import GET, Start, metrics, narinfo_name, push
from tests.observe.test_daemon import start_daemon as start_daemon  # noqa: PLC0414 - a fixture
from tests.small_disk import mounted
from tvix_store.protocol.path_infos import encode_get_path_info
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import TreeFile

PUT = "/tvix.castore.v1.BlobService/Put"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where the store of the daemon will be."""
    with mounted(tmp_path / "daemon/store", mib=8) as disk:
        yield disk


def call(daemon: Daemon, method: str, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    with grpc.insecure_channel(f"127.0.0.1:{daemon.port}") as channel:
        stream: Any = channel.stream_unary(method)
        try:
            stream(iter(messages), timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def test_a_full_disk_is_an_error_in_the_log_but_seldom(small_disk: Path, start_daemon: Start) -> None:
    daemon = start_daemon("--workers", "1")
    nar = trees.nar(TreeFile(noise(16 << 20, "too large")))
    told: list[str] = []
    for _ in range(5):
        answer = daemon.put(nar_name(nar), nar)
        assert answer.status == 413
        told.append(answer.line)
    blob = noise(16 << 20, "too large as well")
    pieces = [b"\x0a\x80\x80\x40" + blob[at : at + (1 << 20)] for at in range(0, len(blob), 1 << 20)]
    code, line = call(daemon, PUT, *pieces)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    told.append(line)
    for line in told:
        assert "free some space" in line
        assert str(daemon.program.directory) not in line
    errors = [line for line in daemon.log.splitlines() if "ERROR" in line]
    assert 1 <= len(errors) <= 2, "one for pushes over HTTP, one for calls"
    assert str(small_disk) in errors[0]
    assert "No space left" in errors[0]
    assert metrics(daemon)["tvix_store_log_lines_total", "error"] == 6


def test_clients_learn_no_paths_of_a_store_that_fails(start_daemon: Start) -> None:
    daemon = start_daemon()
    directory = daemon.program.directory
    path = push(daemon, "a")
    for index in directory.rglob("index*"):
        assert index.exists()
    for pack in directory.rglob("*.pack"):
        pack.unlink()
    time.sleep(0.6)
    nar = trees.nar(TreeFile(b"another"))
    told = [daemon.get(narinfo_name(path)), daemon.get("/nar/" + "0" * 52 + ".nar"), daemon.put(nar_name(nar), nar)]
    shutil.rmtree(directory / "store", ignore_errors=True)
    told += [daemon.get(narinfo_name(path)), daemon.put(nar_name(nar), nar), daemon.get("/readyz")]
    lines = [answer.body.decode() for answer in told]
    assert any(answer.status >= 400 for answer in told)
    lines.append(call(daemon, GET, encode_get_path_info(path.output_hash))[1])
    lines.append(call(daemon, PUT, b"\x0a\x01x")[1])
    assert any("…" in line for line in lines), "there was something to hide"
    for line in lines:
        assert str(directory) not in line, line
    assert "Traceback" not in "\n".join(lines)

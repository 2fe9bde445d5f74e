"""The units of systemd: systemd itself finds no fault, and the command of the service serves on sockets that systemd passes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import TVIX_STORE, Program
from tests.ports import free_port

UNITS = programs.ROOT / "packaging/systemd"
INSTALLED = "/opt/tvix-store/bin/tvix-store"
MOST_EXPOSURE = 20
"""Tenths, as `systemd-analyze security` counts them: 0 is a service without any access, and 100 one without any bounds. It has 15
with systemd 252; other versions look at other things."""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units where systemd looks for them, with a program that exists."""
    for unit in UNITS.glob("*.*"):
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(TVIX_STORE)))
    drop_ins = tmp_path / "tvix-store.service.d"
    drop_ins.mkdir()
    shutil.move(tmp_path / "signing-key.conf", drop_ins)
    return tmp_path


def analyze(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{installed}:", "SYSTEMD_COLORS": "0"}
    command = [programs.require("systemd-analyze"), *arguments]
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_with_the_units(installed: Path) -> None:
    units = sorted(str(unit) for kind in ("service", "socket", "timer") for unit in installed.glob(f"*.{kind}"))
    assert len(units) == 6
    verified = analyze(installed, "verify", *units)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemd_finds_a_fault(installed: Path) -> None:
    """The test above can fail."""
    service = installed / "tvix-store.service"
    service.write_text(service.read_text().replace("WatchdogSec=120", "WatchdogSec=long"))
    assert "Failed to parse" in analyze(installed, "verify", str(service)).stderr


def test_the_service_has_little_exposure(installed: Path) -> None:
    arguments = ("security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSURE}")
    judged = analyze(installed, *arguments, str(installed / "tvix-store.service"))
    assert judged.returncode == 0, judged.stdout
    assert "exposure level for tvix-store.service" in judged.stdout


def test_the_command_of_the_service_serves_on_a_socket_that_systemd_passes(tmp_path: Path) -> None:
    found = re.search(rf"^ExecStart={INSTALLED} (.*)$", (UNITS / "tvix-store.service").read_text(), re.MULTILINE)
    assert found is not None
    port, environment = free_port(), Program(tmp_path).environment
    # It passes on of the environment only what it is told to.
    kept = [f"--setenv={name}" for name in environment]
    activate = [programs.require("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", *kept]
    command = [*activate, str(TVIX_STORE), *shlex.split(found[1]), "--workers=1"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        assert ready(port)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def ready(port: int) -> bool:
    """Whether the daemon behind the socket becomes ready. The socket is there a moment after its program was started."""
    for _ in range(500):
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except ConnectionRefusedError:
            time.sleep(0.02)
        finally:
            connection.close()
    return False

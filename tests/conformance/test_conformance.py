"""Our layer for calls and our engine against the conformance suite of connectrpc.com, in gRPC and in Connect.

Calls and streams of all kinds, errors, metadata, gzip, deadlines, cancellation, size limits, full duplex and TLS, by two clients.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import programs


def test_all_cases_for_servers_pass() -> None:
    connectconformance = programs.require("connectconformance")
    features = Path(__file__).parent / "features.yaml"
    server = [sys.executable, "-m", "tests.conformance.server"]
    run = subprocess.run(
        # One server after the other: several start too slowly on a busy machine.
        [connectconformance, "--mode", "server", "--max-servers", "1", "--conf", features, "--", *server],
        cwd=programs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed, 0 failed" in run.stdout

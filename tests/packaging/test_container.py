"""The container file: what it copies is there, and its commands do what they should. Nothing here builds an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests import programs
from tests.cli.program import Program

FILE = (programs.ROOT / "packaging/container/Containerfile").read_text()


def command(instruction: str) -> list[str]:
    """The words of an instruction in its JSON form."""
    [found] = re.findall(rf"^{instruction}.*?(\[.*\])$", FILE, re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def test_what_it_copies_is_let_through_and_locked() -> None:
    [sources] = re.findall(r"^COPY (requirements.*) /build/$", FILE, re.MULTILINE)
    ignored = (programs.ROOT / ".dockerignore").read_text().splitlines()
    assert [f"!{source}" for source in sources.split()] == [*reversed(ignored[1:])]
    assert (programs.ROOT / sources.split()[0]).exists()
    assert "--require-hashes" in FILE


def test_the_daemon_does_not_open_itself_to_a_network_without_a_token(tmp_path: Path) -> None:
    assert command("ENTRYPOINT") == ["tvix-store"]
    ended = Program(tmp_path).run(*(word.replace(":8000", ":0") for word in command("CMD")))
    assert ended.code == 3
    assert "make a token" in ended.error


def test_the_health_check_tells_a_daemon_that_is_ready() -> None:
    class Handler(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    python, *arguments = command("HEALTHCHECK")
    assert python == "python"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        check = [sys.executable, *(word.replace("localhost:8000", f"127.0.0.1:{server.server_port}") for word in arguments)]
        try:
            assert subprocess.run(check, capture_output=True, check=False).returncode == 0
            Handler.status = 503
            assert subprocess.run(check, capture_output=True, check=False).returncode == 1
        finally:
            server.shutdown()

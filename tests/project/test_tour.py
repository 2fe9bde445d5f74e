"""The tour of the README works as printed.

A line `$ command` of a `console` block is run, and the lines behind it are what it prints, where a line `…` stands for any lines.
All blocks run in one shell. The port is another one, since a daemon may run on this machine.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
END = "=== end of a command"


def steps() -> list[tuple[str, str]]:
    """The commands of the tour, and what each prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(60)
def test_the_tour_works_as_printed(tmp_path: Path) -> None:
    port = str(free_port())
    tour = [(command.replace("8000", port), output) for command, output in steps()]
    assert len(tour) > 15
    script = "set -m\n" + "".join(f"{command}\necho; echo {END!r}\n" for command, _ in tour)
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    printed = done.stdout.split(f"\n{END}\n")[:-1]
    assert len(printed) == len(tour), done.stderr
    for (command, expected), got in zip(tour, printed, strict=True):
        pattern = "(?s:.*)".join(map(re.escape, expected.split("…\n")))
        assert re.fullmatch(pattern, got), f"$ {command}\n{got}\nis not\n{expected}\n{done.stderr}"

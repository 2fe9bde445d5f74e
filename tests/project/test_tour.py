"""The tour of the README works as printed, for who has just come: a bare shell, nothing on the PATH, an empty home.

A line `$ command` of a `console` block is typed, and the lines behind it are what it prints, where a line `…` stands for any lines.
The first command is the daemon, which runs on in a terminal of its own. All others are typed into a second one. Both begin in the
clone. A network and a `/var/lib` of their own keep port 8000 and root's store apart from those of this machine.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import dev
from tests import programs

ROOT = Path(__file__).parents[2]
END = "=== end of a command"
APART = ["unshare", "--net", "--mount", *(["--map-root-user"] if os.geteuid() else []), "--"]
PREPARE = "ip link set lo up && mount -t tmpfs tmpfs /var/lib"
BOTH_TERMINALS = """
{daemon} &
until curl -s -o /dev/null http://localhost:8000; do kill -0 $! || exit; sleep 0.1; done
bash < {typed}
status=$?
kill $! && wait
exit $status
"""


def steps() -> list[tuple[str, str]]:
    """The commands of the tour, and what each prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a new user, to whom the machine gives what the README asks for: Python, Nix and curl."""
    if not dev.STAMP.exists() or dev.STAMP.read_text() not in {dev.stamp("run"), dev.stamp("dev")}:
        pytest.fail("the environment is not that of pyproject.toml; run: python3 dev.py lint", pytrace=False)
    given = tmp_path / "bin"
    given.mkdir()
    (given / "python3").symlink_to(Path(sys.base_prefix, "bin", f"python3.{sys.version_info[1]}"))
    for name in ("nix", "curl"):
        (given / name).symlink_to(programs.require(name))
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "TMPDIR": str(home), "PATH": f"{given}:/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
def apart(bare: dict[str, str]) -> list[str]:
    """What starts a shell that shares neither ports nor `/var/lib` with this machine, where users may have that."""
    if subprocess.run([*APART, "sh", "-c", PREPARE], check=False, capture_output=True).returncode == 0:
        return [*APART, "sh", "-c", f'{PREPARE} && exec "$@"', "sh"]
    bare["TVIX_STORE"] = f"{bare['HOME']}/store"
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 8000)) == 0:
            pytest.skip("something listens on port 8000, and no network of our own can be made")
    return []


def test_the_tour_works_as_printed(tmp_path: Path, bare: dict[str, str], apart: list[str]) -> None:
    (daemon, _), *tour = steps()
    assert daemon == "python3 dev.py run"
    assert len(tour) > 15
    typed = tmp_path / "typed"
    typed.write_text("".join(f"{command}\necho; echo {END!r}\n" for command, _ in tour))
    terminals = BOTH_TERMINALS.format(daemon=f"{daemon} > {shlex.quote(f'{tmp_path}/daemon')} 2>&1", typed=shlex.quote(str(typed)))
    done = subprocess.run([*apart, "bash", "-c", terminals], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    printed = done.stdout.split(f"\n{END}\n")[:-1]
    assert len(printed) == len(tour), done.stderr + (tmp_path / "daemon").read_text()
    for (command, expected), got in zip(tour, printed, strict=True):
        pattern = "(?s:.*)".join(map(re.escape, expected.split("…\n")))
        assert re.fullmatch(pattern, got), f"$ {command}\n{got}\nis not\n{expected}\n{done.stderr}"

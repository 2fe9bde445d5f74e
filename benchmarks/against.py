"""Old code and new in turns: the same benchmarks at another commit, in a checkout of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import ROOT, output, say
from benchmarks.figures import UNITS, Row, Series

_SET_UP = "import dev; dev.set_up('dev')"


def compare(revision: str, parts: Sequence[str], options: Sequence[str], rounds: int, work: Path) -> list[Row]:
    """Measure `parts` at `revision` and here, one round after the other, in turns. The peer of each row is the old code.

    Each commit runs its own benchmarks, with `options`. Rows that only one of them has are left out, and named.
    """
    old: dict[str, list[float]] = {}
    new: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    with _checkout(revision, work) as checkout:
        for number in range(rounds):
            in_turn = [(checkout, old), (ROOT, new)]
            for tree, values in in_turn if number % 2 == 0 else reversed(in_turn):
                say(f"round {number + 1} of {rounds}, {revision if tree is checkout else 'now'}:")
                for row in _measured(tree, parts, options, work):
                    name = f"{row['work']}, beside {row['peer']['by']}" if row["peer"] else row["work"]
                    values.setdefault(name, []).extend(row["ours"]["values"])
                    units[name] = row["unit"]
    for name in sorted(old.keys() ^ new.keys()):
        say(f"only {'old' if name in old else 'new'} code has the row: {name}")
    return [
        Row(name, UNITS[units[name]], Series("now", new[name]), Series(revision, old[name]))
        for name in new
        if len(old.get(name, ())) == len(new[name])
    ]


def _measured(tree: Path, parts: Sequence[str], options: Sequence[str], work: Path) -> list[Mapping[str, Any]]:
    figures = work / "figures.json"
    command: list[str | Path] = [
        tree / ".venv/bin/python",
        "-m",
        "benchmarks",
        "--rounds",
        "1",
        "--json",
        figures,
        *options,
        *parts,
    ]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    rows: list[Mapping[str, Any]] = json.loads(figures.read_text())["rows"]
    return rows


@contextmanager
def _checkout(revision: str, work: Path) -> Iterator[Path]:
    """A checkout of `revision` with an environment of its own, and our tools."""
    tree = work / "against"
    output("git", "-C", ROOT, "worktree", "add", "--detach", tree, revision)
    try:
        (tree / ".tools").symlink_to(ROOT / ".tools")
        subprocess.run([sys.executable, "-c", _SET_UP], cwd=tree, check=True)
        yield tree
    finally:
        output("git", "-C", ROOT, "worktree", "remove", "--force", tree)

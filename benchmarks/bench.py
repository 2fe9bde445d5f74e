"""What all parts share: inputs, fresh directories, rounds, and clocks around programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias

from tests import programs

TVIX_STORE = str(Path(sys.executable).with_name("tvix-store"))
ROOT = Path(__file__).resolve().parent.parent
_MIB = 1024 * 1024
_PIECE = 16 * _MIB
_QUIET = 0.9
_MOMENT = 0.5
"""Seconds."""

Contestant: TypeAlias = Callable[[Path], Mapping[str, float]]
"""Works in an empty directory, and returns what it measured, by name."""


@dataclass(frozen=True)
class Bench:
    """One run: where it works and how much it does. `quick` proves that everything works, and measures nothing.

    patience: seconds to wait, before something is measured, for other programs to leave the cores alone
    copied_gib: GiB of blobs that are copied where memory is measured
    """

    work: Path
    rounds: int
    quick: bool
    patience: float
    copied_gib: int

    @cached_property
    def tree(self) -> Path:
        """A Go toolchain, in a copy that nobody changes meanwhile."""
        source = ROOT / "src" if self.quick else _go_toolchain()
        say(f"copying {source}")
        copy = self.work / "tree"
        shutil.copytree(source, copy, ignore_dangling_symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        return copy

    @cached_property
    def big(self) -> Path:
        """A file of random bytes."""
        path = self.work / "big"
        with path.open("wb") as file:
            for start in range(0, self.big_size, _PIECE):
                file.write(os.urandom(min(_PIECE, self.big_size - start)))
        return path

    @property
    def big_size(self) -> int:
        return (8 if self.quick else 1024) * _MIB

    @property
    def path_infos(self) -> int:
        return 100 if self.quick else 10_000

    @property
    def load_seconds(self) -> int:
        """How long one run of a load generator takes."""
        return 1 if self.quick else 5

    def fresh(self) -> Path:
        """An empty directory, on a disk that has nothing left to write, and cores that have nothing to do.

        It stays until the end of the run. An ext4 without a journal does not use a deleted file's inode again for some minutes, and
        looks at all such inodes whenever a file is made: the next tree would take up to ten times as long to write.
        Source: recently_deleted in Linux' fs/ext4/ialloc.c.
        """
        directory = Path(mkdtemp(dir=self.work))
        os.sync()
        give_up = time.monotonic() + self.patience
        while time.monotonic() < give_up and _idle_share() < _QUIET:
            pass
        return directory

    def interleaved(self, *contestants: Contestant) -> dict[str, list[float]]:
        """Let all contestants work in turn, as often as there are rounds; what each round measured, by name."""
        measured: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(self.rounds):
            for contestant in contestants:
                figures = contestant(self.fresh())
                for name, value in figures.items():
                    measured[name].append(value)
                    say(f"round {number + 1} of {self.rounds}: {name}: {value:.4g}")
        return dict(measured)


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Start a program. Tests put something quicker in place of this."""
    return subprocess.Popen(command, **options)


def timed(*command: str | Path, environment: Mapping[str, str] | None = None, stdin: Path = Path(os.devnull)) -> float:
    """Seconds that a program takes, from its start to its end."""
    with stdin.open("rb") as input_:
        start = time.perf_counter()
        output(*command, environment=environment, stdin=input_.fileno())
        return time.perf_counter() - start


def output(*command: str | Path, environment: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL) -> str:
    """What a program prints; if it fails, that is the end of the run, in its own words."""
    pipe = subprocess.PIPE
    with start(
        command, env={**os.environ, **(environment or {})}, stdin=stdin, stdout=pipe, stderr=pipe, encoding="utf-8"
    ) as process:
        printed, said = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with exit code {process.returncode}:\n{printed}{said}")
    return printed


def apparent_size(directory: Path) -> int:
    """Bytes of everything in a directory and of the directories themselves, as `du -sb` counts."""
    return directory.lstat().st_size + sum(
        os.lstat(os.path.join(parent, name)).st_size for parent, *kinds in os.walk(directory) for names in kinds for name in names
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _idle_share() -> float:
    """The share of their time that the cores have nothing to do, seen for a moment. Source: proc_stat(5)."""
    idle_before, all_before = _core_times()
    time.sleep(_MOMENT)
    idle_after, all_after = _core_times()
    return (idle_after - idle_before) / max(1, all_after - all_before)


def _core_times() -> tuple[int, int]:
    _, _, _, idle, waiting, *_ = times = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return idle + waiting, sum(times)


def _go_toolchain() -> Path:
    go = programs.find("go")
    candidates: Sequence[Path] = [
        *([Path(output(go, "env", "GOROOT").strip())] if go else []),
        *sorted(Path("/usr/lib").glob("go-*"), reverse=True),
        programs.OWN_GO.parents[1],
    ]
    for candidate in candidates:
        if (candidate / "src").is_dir():
            return candidate
    sys.exit("The tree that is imported is a Go toolchain, and there is none; install Go")

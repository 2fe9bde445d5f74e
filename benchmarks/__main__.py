"""`python -m benchmarks [--quick] [--rounds N] [--against REVISION] [--json FILE] [PART…]`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.against import compare
from benchmarks.bench import Bench, output, say
from benchmarks.figures import Row
from benchmarks.report import table, to_json
from tests import programs

PARTS = {
    "import-tree": ("nix-store", "restic", "borg"),
    "import-big": (),
    "import-tree-daemon": (),
    "read": ("h2load",),
    "path-info-get": ("ghz", "h2load"),
    "export-tree": ("nix-store",),
    "memory": (),
    "nar": ("nix-store", "curl"),
    "narinfo": ("wrk",),
    "hostile": ("wrk",),
    "nix-copy": ("nix", "nginx"),
    "range": (),
    "http-memory": ("curl",),
    "push": ("nix", "nginx"),
    "copy-release": ("nix", "nginx", "rsync", "casync"),
    "copy-daemons": (),
    "copy-known": (),
    "copy-memory": (),
    "collection": (),
    "bucket": ("versitygw",),
}
"""The parts, and the programs that each needs. A part is the function `measure` of its module in parts/."""

VERSIONS = {"nix-store": "--version", "restic": "version", "borg": "--version", "h2load": "--version"}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--rounds", type=click.IntRange(1), help="How often everything is measured.  [default: 5]")
@click.option("--quick", is_flag=True, help="Small inputs and one round: shows that everything works, and measures nothing.")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for quiet cores before every measurement.",
)
@click.option(
    "--copied-gib",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    metavar="GIB",
    help="How much copy-memory copies; the disk needs three times as much.",
)
@click.option(
    "--against", "revision", metavar="REVISION", help="Measure the code of this commit in turn with today's, instead of the peers."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all that was measured to this file.")
@click.option(
    "--work-directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="/var/tmp",
    show_default=True,
    help="Where to work, on the disk that is to be measured; it needs 40 GB.",
)
def main(
    parts: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    patience: float,
    copied_gib: int,
    revision: str | None,
    json_file: Path | None,
    work_directory: Path,
) -> None:
    """Measure PARTS, or all."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode; to compile at every start takes 0.1 s
    load_before = os.getloadavg()[0]
    with TemporaryDirectory(dir=work_directory, prefix="tvix-store-bench-") as work:
        bench = Bench(Path(work), rounds or (1 if quick else 5), quick, 0 if quick else patience, copied_gib)
        if revision is None:
            rows = _measured(bench, parts or tuple(PARTS))
        else:
            options = [
                *(["--quick"] if quick else []),
                "--patience",
                str(patience),
                "--copied-gib",
                str(copied_gib),
                "--work-directory",
                work,
            ]
            rows = compare(revision, parts, options, bench.rounds, Path(work))
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before and after": [load_before, os.getloadavg()[0]],
        "versions": [output(name, option).strip() for name, option in VERSIONS.items() if programs.find(name)],
    }
    if json_file:
        json_file.write_text(json.dumps(to_json(rows, machine), indent=2) + "\n")
    print(table(rows))
    print("\n" + "\n".join(f"{name}: {value}" for name, value in machine.items()))


def _measured(bench: Bench, parts: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for part in parts:
        missing = [name for name in PARTS[part] if programs.find(name) is None]
        for name in missing:
            say(f"{part} is left out: {name} is missing; {programs.advice(name)}")
        if not missing:
            say(f"{part}:")
            rows += import_module(f"benchmarks.parts.{part.replace('-', '_')}").measure(bench)
    return rows


if __name__ == "__main__":
    main()

"""Puts small faults into the code of a room, one at a time, and looks whether the tests of the room notice.

    python3 dev.py mutants [--count 20] [--seed 0] [ROOM…]
    python3 dev.py mutants backends/local --only committer.py --tests test_committer.py --tests test_syncs.py

A room is a package below src/tvix_store; its tests are those below tests/ of the same name. Where these take long, `--tests`
names some of their files. Each fault is put into a copy of the code. The tests stop at the first failure. A fault that they do not
notice survives, and is printed as a change of its line. Some survivors mean nothing: a bound that is there for speed alone, or a
log line. The exit code is 1 where any survives.
"""

from __future__ import annotations

import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src/tvix_store"
_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.LShift: ast.RShift,
}
_PLAIN = (ast.Name, ast.Call, ast.Attribute, ast.Await)
"""Conditions that are negated; others are nodes with faults of their own."""
_SILENT = ("_log", "logging", "warnings")
"""Calls of these are not removed: no test reads every line of a log."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file below the package, and its text with one fault."""

    file: Path
    line: int
    source: str
    mutated: str

    def __str__(self) -> str:
        changed = difflib.unified_diff(self.source.splitlines(), self.mutated.splitlines(), n=0, lineterm="")
        lines = [line for line in changed if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        return "\n".join([f"{self.file}:{self.line}", *(f"    {line}" for line in lines)])


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a module."""
    source = (PACKAGE / file).read_text()
    for node in _code(ast.parse(source)):
        for replacement in _faults(node):
            mutated = _replaced(source, node, replacement)
            if mutated is not None:
                yield Mutant(file, node.lineno, source, mutated)


def _code(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The nodes that do something when the program runs: no annotations, and nothing that is there for type checkers alone."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, (ast.expr, ast.stmt)):
                yield child
            yield from _code(child)


def _faults(node: ast.AST) -> Iterator[str]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(ops=[only]) if type(only) in _OTHER:
            yield _with(node, ops=[_OTHER[type(only)]()])
        case ast.BoolOp() | ast.BinOp() if type(node.op) in _OTHER:
            yield _with(node, op=_OTHER[type(node.op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield repr(value + 1)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if isinstance(test, _PLAIN):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Raise() | ast.AugAssign():
            yield "pass"
        case ast.Expr(value=ast.Call() | ast.Await() as value) if not ast.unparse(value).startswith(_SILENT):
            yield "pass"
        case ast.Assign(targets=[ast.Attribute()]):
            yield "pass"


def _with(node: ast.AST, **fields: object) -> str:
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return ast.unparse(ast.fix_missing_locations(changed))


def _replaced(source: str, node: ast.expr | ast.stmt, replacement: str) -> str | None:
    """The source with another text in a node's place; None where that is no program, or the same one."""
    before = ast.get_source_segment(source, node)
    assert before is not None
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
    indented = replacement.replace("\n", "\n" + " " * node.col_offset)
    text = f"({indented})" if isinstance(node, ast.expr) else indented
    mutated = source[:start] + text + source[start + len(before) :]
    try:
        same = ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source))
    except SyntaxError:
        return None
    return None if same else mutated


def _tests(directory: Path, tests: Sequence[Path], seconds: float | None) -> bool | None:
    """Whether tests pass with the code in `directory`; None where they are not over in time."""
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ("-x", "-q", "-n", "2", "--dist=worksteal", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    command = [sys.executable, "-m", "pytest", *options, *map(str, tests)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # the tests' own children are in its session
        process.wait()
        return None


def _sample(room: str, only: str | None, count: int, seed: int) -> list[Mutant]:
    files = sorted(file.relative_to(PACKAGE) for file in (PACKAGE / room).rglob("*.py") if only is None or file.name == only)
    return random.Random(f"{seed} {room}").sample(all_ := [each for file in files for each in mutants(file)], min(count, len(all_)))


@click.command(help=__doc__)
@click.argument("rooms", nargs=-1, metavar="[ROOM…]")
@click.option("--count", default=20, show_default=True, help="Faults for each room.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other faults.")
@click.option("--only", metavar="FILE", help="Put faults into modules of this name alone.")
@click.option("--tests", "names", multiple=True, metavar="FILE", help="Run only tests in files of this name; may be repeated.")
def main(rooms: Sequence[str], count: int, seed: int, only: str | None, names: Sequence[str]) -> None:
    survivors = 0
    with TemporaryDirectory(prefix="tvix-store-mutants-") as temporary:
        copy = Path(temporary)
        shutil.copytree(PACKAGE, copy / "tvix_store", ignore=shutil.ignore_patterns("__pycache__"))
        for room in rooms or _rooms():
            tests = [file for name in names for file in (ROOT / "tests" / room).rglob(name)] or [ROOT / "tests" / room]
            began = time.monotonic()
            if not _tests(copy, tests, None):
                sys.exit(f"the tests of {room} fail without any fault")
            limit = 30 + 3 * (time.monotonic() - began)
            sample = _sample(room, only, count, seed)
            survived = 0
            for number, mutant in enumerate(sample, 1):
                place = copy / "tvix_store" / mutant.file
                place.write_text(mutant.mutated)
                passed = _tests(copy, tests, limit)
                survived += bool(passed)
                if passed is not False:
                    click.echo(f"{'survives' if passed else 'takes too long, which counts as noticed'}: {mutant}")
                place.write_text(mutant.source)
                click.echo(f"{room}: {number} of {len(sample)}, {survived} survive", err=True)
            click.echo(f"{room}: {len(sample) - survived} of {len(sample)} were noticed")
            survivors += survived
    sys.exit(1 if survivors else 0)


def _rooms() -> list[str]:
    """All rooms that have tests of the same name."""
    return sorted(each.name for each in PACKAGE.iterdir() if each.is_dir() and (ROOT / "tests" / each.name).is_dir())


if __name__ == "__main__":
    main()

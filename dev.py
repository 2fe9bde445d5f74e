#!/usr/bin/env python3
"""Sets up what a task needs (once, in .venv and .tools), then does the task. Needs only Python 3.11 or newer.

    python3 dev.py run          run the daemon on the embedded store in the user's data directory
    python3 dev.py test         run all tests; with --fast, those that start no program, in a minute
    python3 dev.py newer-nix    run the tests in which Nix takes part with a newer Nix than the system's
    python3 dev.py lint         check style, types and layers
    python3 dev.py docs         make the documentation as pages, with the reference of the library, in build/docs
    python3 dev.py format       mend what can be mended of the style
    python3 dev.py fuzz         feed hostile input to the parsers
    python3 dev.py mutants      put faults into the code, and list those that no test notices
    python3 dev.py conformance  run the gRPC conformance suite alone
    python3 dev.py bench        measure against other stores
    python3 dev.py protos       compile protos/ to the descriptor set in src/
    python3 dev.py page         write again what docs/ have from the code: the table of options, the picture of the layers
    python3 dev.py lock         pin the dependencies of pyproject.toml in requirements/ (--upgrade: to the newest)
    python3 dev.py release      make CHANGELOG.md, tag, sdist and wheel of a version: release 0.2.0
    python3 dev.py clean        remove everything that the tasks have set up

Further arguments go to the program behind the task, as in `python3 dev.py test -k nar`.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import newer_nix, programs

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
STAMP = VENV / "set-up-for"
SIDE_BY_SIDE = ["-n", str(2 * (os.cpu_count() or 1)), "--dist=worksteal"]
"""Many tests wait for half of their time: 859 of them took 112 s in four processes on two cores, and 160 in two."""
ROOMS_OF_FAST_TESTS = ("chunking", "concurrency", "config", "library", "model", "nar", "services")
FAST = [
    "--hypothesis-profile=fast",
    *(f"tests/{room}" for room in ROOMS_OF_FAST_TESTS),
    "tests/backends/test_memory.py",
]
"""Rooms whose tests start no program, and less of Hypothesis: without layers, operations, other backends, servers, the program."""
LOCKS = {"run": ["requirements/run.txt", "requirements/build.txt"], "dev": ["requirements/dev.txt"]}


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - it is what an older Python meets first
        sys.exit(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}: call dev.py with another one")
    task, *arguments = sys.argv[1:] or ["help"]
    if task not in TASKS:
        sys.exit(__doc__)
    os.chdir(ROOT)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # thousands of starts would each compile what they import
    TASKS[task](arguments)


def run(arguments: list[str]) -> None:
    set_up("run")
    become(VENV / "bin/tvix-store", "daemon", *arguments)


def test(arguments: list[str]) -> None:
    set_up("dev")
    if "--fast" not in arguments:
        programs.install(
            "nix-store",
            "curl",
            "strace",
            "h2load",
            "wrk",
            "nginx",
            "postgres",
            "systemd-analyze",
            "grpcurl",
            "connectconformance",
            "versitygw",
            "zsh",
            "fish",
            *programs.COMPRESSORS,
        )
    become(PYTHON, "-m", "pytest", *SIDE_BY_SIDE, *chosen(arguments))


def chosen(arguments: list[str]) -> list[str]:
    return [each for argument in arguments for each in (FAST if argument == "--fast" else [argument])]


def test_with_newer_nix(arguments: list[str]) -> None:
    set_up("dev")
    programs.install("curl", "strace", "nginx", "postgres", *programs.COMPRESSORS)
    missing = newer_nix.install()
    if missing is not None:
        sys.exit(f"There is no newer Nix: {missing}. With one at the front of the PATH: {PYTHON} -m pytest -m nix")
    os.environ["PATH"] = f"{newer_nix.PROGRAMS}:{os.environ['PATH']}"
    become(PYTHON, "-m", "pytest", *SIDE_BY_SIDE, "-m", "nix", *newer_nix.ROOMS, *arguments)


def lint(arguments: list[str]) -> None:
    set_up("dev")
    tools = VENV / "bin"
    do([PYTHON, "tools/doc_examples.py"])
    do(
        [tools / "ruff", "check"],
        [tools / "ruff", "format", "--check"],
        [tools / "mypy"],
        [tools / "mypy", "build/doc_examples"],
        [tools / "basedpyright", "--project=pyproject.toml"],  # or a pyrightconfig.json above is taken first
        [tools / "lint-imports", "--no-logo"],
    )


def docs(arguments: list[str]) -> None:
    set_up("dev")
    do([VENV / "bin/mkdocs", "build", *arguments])  # not --quiet, with which a warning is no error


def format_(arguments: list[str]) -> None:
    set_up("dev")
    do([VENV / "bin/ruff", "check", "--fix"], [VENV / "bin/ruff", "format"])


def fuzz(arguments: list[str]) -> None:
    set_up("dev")
    for target in sorted(Path("tests/fuzz").glob("fuzz_*.py")):
        do([PYTHON, target, *arguments])


def mutants(arguments: list[str]) -> None:
    set_up("dev")
    become(PYTHON, "tools/mutants.py", *arguments)


def conformance(arguments: list[str]) -> None:
    set_up("dev")
    programs.install("connectconformance")
    become(PYTHON, "-m", "pytest", "tests/conformance", *arguments)


def bench(arguments: list[str]) -> None:
    set_up("dev")
    programs.install("nix-store", "restic", "borg", "curl", "h2load", "wrk", "nginx", "ghz", "rsync", "casync")
    become(PYTHON, "-m", "benchmarks", *arguments)


def protos(arguments: list[str]) -> None:
    set_up("dev")
    do([PYTHON, "tools/compile_protos.py"])


def page(arguments: list[str]) -> None:
    set_up("dev")
    do([PYTHON, "tools/configuration_page.py"], [PYTHON, "tools/layer_picture.py"])


def lock(arguments: list[str]) -> None:
    if not (VENV / "bin/uv").exists():  # else it need not be set up: it may lack what is to be locked
        set_up("dev")
    options = ["--quiet", "--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url"]
    options += ["--custom-compile-command=python3 dev.py lock", *arguments]
    for name, *sources in (
        ("dev", "pyproject.toml", "--group=dev"),
        ("run", "pyproject.toml", "--constraint=requirements/dev.txt"),
        ("container", "pyproject.toml", "--extra=objectstore", "--extra=postgresql", "--constraint=requirements/dev.txt"),
        ("build", "--group=build", "--constraint=requirements/dev.txt"),
        ("release", "--group=release", "--constraint=requirements/dev.txt"),
        ("go", "--group=go"),
    ):
        do([VENV / "bin/uv", "pip", "compile", *options, *sources, f"--output-file=requirements/{name}.txt"])


def release(arguments: list[str]) -> None:
    set_up("dev")
    pip_install("--require-hashes", "--only-binary=:all:", "--requirement=requirements/release.txt")
    become(PYTHON, "tools/release.py", *arguments)


def clean(arguments: list[str]) -> None:
    for name in (".venv", ".tools", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"):
        shutil.rmtree(name, ignore_errors=True)


TASKS: dict[str, Callable[[list[str]], None]] = {
    "run": run,
    "test": test,
    "newer-nix": test_with_newer_nix,
    "lint": lint,
    "docs": docs,
    "format": format_,
    "fuzz": fuzz,
    "mutants": mutants,
    "conformance": conformance,
    "bench": bench,
    "protos": protos,
    "page": page,
    "lock": lock,
    "release": release,
    "clean": clean,
}


def set_up(purpose: str) -> None:
    """Make .venv hold the project and what is locked for `purpose`: "run", or "dev", which is that and more."""
    with one_at_a_time():
        present = STAMP.read_text() if STAMP.exists() and PYTHON.exists() else ""
        if present in {stamp(purpose), stamp("dev")}:
            return
        print(f"Setting up {VENV.name}, which takes a minute the first time", file=sys.stderr)
        if present != stamp("run"):
            make_venv()
        STAMP.unlink(missing_ok=True)
        pip_install("--require-hashes", "--only-binary=:all:", *(f"--requirement={lock}" for lock in LOCKS[purpose]))
        pip_install("--no-build-isolation", "--editable=.")
        STAMP.write_text(stamp(purpose))


def stamp(purpose: str) -> str:
    """What .venv was made of: it differs when .venv has to be made again."""
    import tomllib  # older Pythons lack it, and main() tells them so

    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    locks = [Path(lock).read_text() for lock in LOCKS["run"] + LOCKS["dev"]]
    return purpose + " " + hashlib.sha256(repr((sys.version_info[:2], project, locks)).encode()).hexdigest()


def make_venv() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python3.{sys.version_info[1]}-venv"
        if not programs.apt_get_install(package):
            sys.exit(f"This Python has no ensurepip. Install it (on Debian and Ubuntu: apt-get install {package}) and try again.")
    do([sys.executable, "-m", "venv", "--clear", VENV])


def pip_install(*arguments: str) -> None:
    do([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *arguments])


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second dev.py wait here until the first one is through."""
    directory = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(directory)


def do(*commands: Sequence[str | Path]) -> None:
    """Run every command, and stop if one of them has failed."""
    if any([subprocess.run(command, check=False).returncode for command in commands]):  # noqa: C419 - every one
        sys.exit(1)


def become(program: Path, *arguments: str) -> None:
    """Replace this process by a program, so that signals and the exit status are its own."""
    os.execv(program, [str(program), *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()

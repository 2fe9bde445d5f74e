"""The programs that tests and benchmarks start: where they are, and how to get them.

A test says `nix_store = programs.require("nix-store")` and gets a path. `dev.py` installs what a task needs
before it starts, as far as it can; what is missing then is a skipped test that says how to get it, and in CI a failed one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from types import MappingProxyType

COMPRESSORS = {"brotli": "brotli", "bzip2": "bzip2", "gzip": "gzip", "lz4": "lz4", "lzip": "lzip", "xz": "xz-utils", "zstd": "zstd"}
DEBIAN = {
    "nix": "nix-bin",
    "nix-build": "nix-bin",
    "nix-store": "nix-bin",
    "curl": "curl",
    "h2load": "nghttp2-client",
    "initdb": "postgresql",
    "nginx": "nginx",
    "postgres": "postgresql",
    "setpriv": "util-linux",
    "strace": "strace",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
    "wrk": "wrk",
    "restic": "restic",
    "borg": "borgbackup",
    "rsync": "rsync",
    "casync": "casync",
    "zsh": "zsh",
    "fish": "fish",
    **COMPRESSORS,
}
GO = {
    "connectconformance": "connectrpc.com/conformance/cmd/connectconformance@v1.0.7",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.93.0",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
OWN_GO = TOOLS / "go/go/bin/go"
_PLACES_OF_SERVERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True))
"""Where nginx and PostgreSQL are. Debian's users do not have these in their PATH."""


def require(name: str) -> str:
    """The path of a program; without it the running test is skipped, or failed in CI."""
    import pytest  # not at the top: dev.py calls this module before pytest is there

    path = find(name)
    if path is None:
        reason = f"{name} is missing; {advice(name)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


def find(name: str) -> str | None:
    """The path of a program, if it is installed: Go programs in exactly our version, in .tools."""
    if name in GO:
        return shutil.which(name, path=_go_bin(name))
    return shutil.which(name) or shutil.which(name, path=":".join(_PLACES_OF_SERVERS))


def advice(name: str) -> str:
    """How to get a program, for a person."""
    if name in GO:
        return f"install Go and run: GOBIN={_go_bin(name)} go install {GO[name]}"
    return f"on Debian and Ubuntu: apt-get install {DEBIAN[name]}"


def install(*names: str) -> None:
    """Install the programs that are missing, and say on stderr which of them can't be."""
    missing = [name for name in names if find(name) is None]
    packages = [DEBIAN[name] for name in missing if name in DEBIAN]
    if packages:
        apt_get_install(*packages)
    for name in missing:
        if name in GO:
            _go_install(name)
        if find(name) is None:
            print(f"{name} could not be installed; {advice(name)}", file=sys.stderr)


def apt_get_install(*packages: str) -> bool:
    """Install Debian packages. False where this is not Debian, we are not root, or it fails."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print("Installing " + " ".join(packages), file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return apt_get_update() and run("apt-get", "install", "-qq", "--no-install-recommends", *packages, environment=environment)


def apt_get_update() -> bool:
    """Let apt hear what there is. False where this is not Debian, we are not root, or it fails."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and run("apt-get", "update", "-qq")


def go_build(source: Path, target: Path) -> bool:
    """Build the Go program in the directory `source`."""
    return _go("build", "-o", str(target), ".", directory=source)


def _go_install(name: str) -> None:
    print(f"Building {GO[name]}", file=sys.stderr)
    _go("install", GO[name], environment={"GOBIN": _go_bin(name)})


def _go(*arguments: str, environment: Mapping[str, str] = MappingProxyType({}), directory: Path = ROOT) -> bool:
    """Run the system's Go; where that is absent or too old (Debian 12's is), a locked one."""
    environment = {**os.environ, "CGO_ENABLED": "0", **environment}
    system_go = shutil.which("go")
    if system_go and run(system_go, *arguments, environment=environment, directory=directory):
        return True
    if not OWN_GO.exists():
        pip_install = (ROOT / ".venv/bin/python", "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:")
        run(*pip_install, f"--target={OWN_GO.parents[2]}", f"--requirement={ROOT / 'requirements/go.txt'}")
    return OWN_GO.exists() and run(OWN_GO, *arguments, environment=environment, directory=directory)


def _go_bin(name: str) -> str:
    return str(TOOLS / GO[name].rpartition("/")[2])


def run(*command: str | Path, environment: Mapping[str, str] = os.environ, directory: Path = ROOT) -> bool:
    """Run a command, which says on stderr what it says, and tell whether it succeeded."""
    done = subprocess.run(command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    return done.returncode == 0

"""A newer Nix than the system's, as a second client: Debian's packages, unpacked below `.tools` and run by their own loader.

That needs neither root nor a chroot, and installs nothing. `apt` brings the packages, from the mirror that the system uses;
they are of Debian's unstable suite, so what is newest today is tested, and kept until `dev.py clean`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests import programs

PLACE = programs.TOOLS / "newer-nix"
PROGRAMS = PLACE / "bin"
"""What goes to the front of the PATH."""
ROOMS = ("tests/access", "tests/cli", "tests/http", "tests/nar", "tests/operations")
"""Where tests take Nix: to collect those of all rooms would take longer than a fifth of them."""
SUITES = ("sid", "testing")
"""Tried one after the other: unstable is not whole on every day."""
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NO_HOOK = "build-hook ="
"""It would start itself for that, by what the kernel calls it: the loader."""
_COMMANDS = ("nix", "nix-build", "nix-hash", "nix-instantiate", "nix-store")


def install() -> str | None:
    """Make it ready; it takes some 15 seconds the first time. Returns what is missing, in a sentence, where it cannot be."""
    if not (PROGRAMS / "nix").exists():
        if not _KEYRING.exists():
            return "only Debian's packages are known here, and this is not Debian"
        if not any(_unpacked(mirror, suite) for mirror in _mirrors() for suite in SUITES):
            return "its packages did not come; apt-get update, as root, tells apt of Debian's mirror"
    return None


def _mirrors() -> list[str]:
    """Where the system has its Debian from; apt knows when it has been there once."""
    command = ("apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)", "Created-By: Packages")
    for _ in range(2):
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        lines = [line.split() for line in told.splitlines()]
        mirrors = [line[2] for line in lines if len(line) == 3 and line[0] == "Debian" and "-" not in line[1]]
        if mirrors or not programs.apt_get_update():
            break
    return list(dict.fromkeys(mirrors))


def _unpacked(mirror: str, suite: str) -> bool:
    print(f"Fetching Nix from Debian {suite}", file=sys.stderr)
    work = PLACE.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("apt/lists/partial", "apt/archives/partial"):
        (work / name).mkdir(parents=True)
    try:
        return _fetch(work / "apt", mirror, suite) and _unpack(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fetch(apt: Path, mirror: str, suite: str) -> bool:
    """Bring the packages to `apt`, with all that they need, as if nothing were installed."""
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n")
    (apt / "status").touch()
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": apt,
        "Dir::State::Lists": apt / "lists",
        "Dir::State::Status": apt / "status",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": apt / "archives",
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return programs.run("apt-get", *options, "-qq", "update") and programs.run(
        "apt-get", *options, "-qq", "--yes", "--download-only", "install", "nix-bin"
    )


def _unpack(work: Path) -> bool:
    tree = work / "tree"
    if not all(programs.run("dpkg-deb", "--extract", package, tree) for package in (work / "apt/archives").glob("*.deb")):
        return False
    made = work / "made"
    (made / "bin").mkdir(parents=True)
    (tree / "usr/lib").rename(made / "lib")
    (tree / "usr/bin/nix").rename(made / "nix")
    [loader] = made.glob("lib/*/ld-linux*.so.*")
    there = PLACE / loader.relative_to(made)
    for command in _COMMANDS:
        script = made / "bin" / command
        run = f'"{there}" --library-path "{there.parent}" --argv0 {command} "{PLACE / "nix"}" "$@"'
        script.write_text(f'#!/bin/sh\nNIX_CONFIG="$NIX_CONFIG\n{_NO_HOOK}" exec {run}\n')
        script.chmod(0o755)
    shutil.rmtree(PLACE, ignore_errors=True)
    made.rename(PLACE)
    return programs.run(PROGRAMS / "nix", "--version")

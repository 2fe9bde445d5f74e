"""Make a release: `python3 dev.py release 0.2.0`.

The notes in changes/ become a part of CHANGELOG.md, in a commit that the tag `v0.2.0` names. From that commit come the sdist and
the wheel in dist/. All is made in a work tree beside this one. Nothing changes here before all of it is there. Nothing is uploaded.

`--preview` prints the part of CHANGELOG.md, and does no more. `--checked` leaves out .ci/run, where CI has passed this commit.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

from packaging.version import InvalidVersion, Version

THEN = """\
{tag} is made, here alone. To publish it:

    git push --atomic origin HEAD {tag}
    .venv/bin/python -m twine upload dist/*

To take it back: git tag -d {tag} && git reset --keep HEAD~1
"""


class Refused(Exception):  # noqa: N818 - the release is
    """Why no release can be made, in one line."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="dev.py release", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--preview", action="store_true")
    parser.add_argument("--checked", action="store_true")
    given = parser.parse_args(arguments)
    here = Path.cwd()
    try:
        check_version(given.version, git(here, "tag", "--list", "v*").split())
        if given.preview:
            print(release_notes(here / "changes", given.version))
            return
        check_clean(here)
        if not given.checked:
            run(here, ".ci/run")
            check_clean(here)
        release(here, given.version)
    except Refused as refused:
        sys.exit(f"no release: {refused}")
    print(THEN.format(tag=f"v{given.version}"))


def release(here: Path, version: str) -> None:
    """Make commit, distributions and tag; `here` gets them once all are made.

    Raises:
        Refused: a step failed. Nothing has changed here.
    """
    with beside(here) as tree:
        write_changelog(tree, version)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", f"--message=Release {version}")
        build(tree, version)
        git(here, "merge", "--quiet", "--ff-only", git(tree, "rev-parse", "HEAD").strip())
        git(here, "tag", "--annotate", f"--message=tvix-store {version}", f"v{version}")
        shutil.rmtree(here / "dist", ignore_errors=True)
        shutil.copytree(tree / "dist", here / "dist")


def check_version(version: str, tags: Sequence[str]) -> None:
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise Refused(f"{version!r} is no version such as 0.2.0 or 0.2.0rc1") from None
    if str(wanted) != version or wanted.local or wanted.dev is not None:
        raise Refused(f"{version!r} is not how a release is written, as 0.2.0 or 0.2.0rc1")
    newest = max(map(Version, tags), default=None)
    if newest is not None and wanted <= newest:
        raise Refused(f"{version} is not newer than {newest}, the newest tag")


def check_clean(here: Path) -> None:
    if changed := git(here, "status", "--porcelain").splitlines():
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        raise Refused(f"not committed: {changed[0][3:]}{more}")


def release_notes(changes: Path, version: str) -> str:
    """The part of CHANGELOG.md about a release: its notes, by issue and name.

    Raises:
        Refused: there are none.
    """
    paths = sorted(changes.glob("[0-9]*-*.md"), key=lambda path: (int(path.name.partition("-")[0]), path.name))
    if not paths:
        raise Refused("changes/ has no notes, so nothing has changed for users")
    notes = ["- " + indent(path.read_text().strip(), "  ").lstrip() for path in paths]
    return "\n".join([f"## {version} ({datetime.now(UTC):%Y-%m-%d})", "", *notes])


def write_changelog(tree: Path, version: str) -> None:
    """Move the notes of changes/ into CHANGELOG.md, before the releases that it has."""
    changelog = tree / "CHANGELOG.md"
    head, *releases = re.split(r"^(?=## )", changelog.read_text(), flags=re.MULTILINE)
    changelog.write_text("\n\n".join(map(str.rstrip, [head, release_notes(tree / "changes", version), *releases])) + "\n")
    for note in (tree / "changes").glob("[0-9]*-*.md"):
        note.unlink()


def build(tree: Path, version: str) -> None:
    """Make dist/ with sdist and wheel: the tag that gives the version is yet to come."""
    run(tree, sys.executable, "-m", "build", "--no-isolation", pretend=version)
    made = sorted(path.name for path in (tree / "dist").iterdir())
    if len(made) != 2 or not all(f"-{version}" in name for name in made):
        raise Refused(f"dist/ has {', '.join(made)} and not one sdist and one wheel of {version}")
    run(tree, sys.executable, "-m", "twine", "check", "--strict", *(f"dist/{name}" for name in made))


@contextmanager
def beside(here: Path) -> Iterator[Path]:
    """A work tree of the same commit, for as long as it is needed."""
    with TemporaryDirectory(prefix="release-") as directory:
        tree = Path(directory, "tree")
        git(here, "worktree", "add", "--quiet", "--detach", str(tree))
        try:
            yield tree
        finally:
            git(here, "worktree", "remove", "--force", str(tree))


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(f"git {arguments[0]}: {told[-1] if told else f'exit code {done.returncode}'}")
    return done.stdout


def run(directory: Path, *command: str, pretend: str | None = None) -> None:
    """Run a program that tells a person what it does. The version is what `pretend` says, and not that of the tags."""
    environment = os.environ | ({} if pretend is None else {"SETUPTOOLS_SCM_PRETEND_VERSION": pretend})
    if subprocess.run(command, cwd=directory, check=False, env=environment).returncode:
        raise Refused(f"this has failed: {' '.join(command)}")


if __name__ == "__main__":
    main()

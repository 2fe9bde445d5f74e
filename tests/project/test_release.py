"""A release is made of what is committed, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import release

PROJECT = """\
[build-system]
requires = ["hatch-vcs", "hatchling"]
build-backend = "hatchling.build"

[project]
name = "tiny"
dynamic = ["version"]
requires-python = ">=3.11"

[tool.hatch.version]
source = "vcs"

[tool.hatch.build.targets.wheel]
only-include = ["tiny.py"]
"""
FILES = {
    "pyproject.toml": PROJECT,
    "tiny.py": "",
    ".gitignore": "dist/\n",
    "CHANGELOG.md": "# Changelog\n\nIntroduction.\n\n## 0.1.0 (2026-01-02)\n\n- The first.\n",
    "changes/README.md": "# Changes\n",
    "changes/10-second.md": "The second\nnote.\n",
    "changes/9-first.md": "The first note.\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one release behind it, and two notes since."""
    for name, content in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    root = tmp_path / "project"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = A\nemail = a@example.org\n")
    for command in ("init --quiet", "add --all", "commit --quiet --message=All", "tag v0.1.0"):
        release.git(root, *command.split())
    monkeypatch.chdir(root)
    return root


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        release.main(arguments)
    return str(caught.value)


def state(project: Path) -> tuple[str, str, str]:
    return (
        release.git(project, "rev-parse", "HEAD"),
        release.git(project, "tag"),
        release.git(project, "worktree", "list"),
    )


def test_a_release_is_a_commit_a_tag_and_two_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = release.run
    monkeypatch.setattr(release, "run", lambda *command, **how: None if "twine" in command else run(*command, **how))
    release.main(["0.2.0", "--checked"])
    assert release.git(project, "describe").strip() == "v0.2.0"
    assert sorted(path.name for path in (project / "dist").iterdir()) == ["tiny-0.2.0-py3-none-any.whl", "tiny-0.2.0.tar.gz"]
    assert [path.name for path in (project / "changes").iterdir()] == ["README.md"]
    head, new, old = (project / "CHANGELOG.md").read_text().split("\n## ")
    assert head == "# Changelog\n\nIntroduction.\n"
    assert new.startswith("0.2.0 (20")
    assert new.endswith(")\n\n- The first note.\n- The second\n  note.\n")
    assert old == "0.1.0 (2026-01-02)\n\n- The first.\n"
    assert len(release.git(project, "worktree", "list").splitlines()) == 1


def test_a_release_that_fails_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(project)
    monkeypatch.setattr(sys, "executable", "false")
    assert refused("0.2.0", "--checked") == "no release: this has failed: false -m build --no-isolation"
    assert state(project) == before
    assert not (project / "dist").exists()


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("0.1.0", "0.1.0 is not newer than 0.1.0, the newest tag"),
        ("next", "'next' is no version such as 0.2.0 or 0.2.0rc1"),
        ("v0.2.0", "'v0.2.0' is not how a release is written, as 0.2.0 or 0.2.0rc1"),
    ],
)
def test_a_version_that_does_not_come_next_is_refused(project: Path, version: str, why: str) -> None:
    assert refused(version, "--checked") == f"no release: {why}"


def test_what_is_not_committed_is_in_no_release(project: Path) -> None:
    (project / "tiny.py").write_text("1")
    assert refused("0.2.0", "--checked") == "no release: not committed: tiny.py"


def test_without_notes_there_is_nothing_to_release(project: Path) -> None:
    subprocess.run("git rm -q changes/[0-9]* && git commit -qm none", shell=True, check=True)
    assert refused("0.2.0", "--preview") == "no release: changes/ has no notes, so nothing has changed for users"

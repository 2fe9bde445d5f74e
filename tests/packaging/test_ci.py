"""The files for CI systems: they are YAML, their commands are a shell's, and their rules are those of docs/ci.md."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.cli.program import Program
from tests.yaml import documents
from tvix_store.access.identity_rule import IdentityRule

FILES = sorted((programs.ROOT / "packaging/ci").glob("*.yaml"))
DOCS = programs.ROOT / "docs"
RULES = re.findall(r"--oidc-rule '(issuer=https[^']*)'", (DOCS / "ci.md").read_text())


def commands(file: Path) -> list[str]:
    """The shell commands of a workflow of GitHub, or of a pipeline of GitLab."""
    [document] = documents(file.read_text())
    if "jobs" in document:
        steps: list[dict[str, Any]] = [step for job in document["jobs"].values() for step in job["steps"]]
        return [step["run"] for step in steps if "run" in step]
    return ["\n".join(job["script"]) for job in document.values() if isinstance(job, dict) and "script" in job]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_commands_are_those_of_a_shell(file: Path) -> None:
    found = commands(file)
    assert len(found) == 2
    assert "nix copy" in found[-1]
    for each in found:
        checked = subprocess.run(["bash", "-n"], input=each, capture_output=True, text=True, check=False)
        assert checked.stderr == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_rule_at_the_top_and_on_its_page_is_that_of_the_reference(file: Path) -> None:
    top = re.sub(r"\n# *", " ", file.read_text())
    page = (DOCS / "how-to" / file.with_suffix(".md").name).read_text()
    rules = [IdentityRule.parse(rule) for text in (top, page) for rule in re.findall(r"--oidc-rule '([^']*)'", text)]
    assert len(rules) == 2
    [wanted] = [rule for rule in map(IdentityRule.parse, RULES) if rule.issuer == rules[0].issuer]
    assert rules == [wanted, wanted]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_netrc_that_a_job_writes_names_the_cache_and_its_token(file: Path, tmp_path: Path) -> None:
    [line] = re.findall(r"(echo \"machine .*\") > ", commands(file)[-1])
    program = Program(tmp_path)
    variables = {"CACHE": "https://cache.example.org", "token": "t0", "CACHE_TOKEN": "t0"}
    written = subprocess.run(
        ["bash", "-euc", line], env={**program.environment, **variables}, capture_output=True, text=True, check=True
    )
    assert shlex.split(written.stdout) == ["machine", "cache.example.org", "login", "job", "password", "t0"]

"""What the documents tell a reader to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dev
import tvix_store
from tvix_store import sync
from tvix_store.cli.program import SECTIONS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tasks_that_a_document_names_exist(document: Path) -> None:
    named = re.findall(r"(?:^ *|`)(?:python3 dev\.py|make) ([a-z-]+)", document.read_text(), re.MULTILINE)
    assert set(named) <= set(dev.TASKS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_a_document_links_exist(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_makefile_knows_every_task() -> None:
    tasks = re.search(r"^TASKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tasks is not None
    assert tasks[1].split() == list(dev.TASKS)


def test_the_page_of_the_program_has_every_command() -> None:
    rows = re.findall(r"^\| (.*?) \| ", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`([a-z-]+)", row)}
    assert {command for commands in SECTIONS.values() for command in commands} - named == set()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = "python3 dev.py test"
    assert command in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci/run").read_text()


def test_the_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs/reference.md").read_text()
    named = set(re.findall(r"^::: \S+\.(\w+)$", reference, re.MULTILINE)) | {"__version__"}
    assert set(tvix_store.__all__) <= named
    assert set(sync.__all__) - {"Blobs", "Directories", "PathInfos"} <= named | set(re.findall(r"`(\w+)`", reference))

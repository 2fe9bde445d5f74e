"""The pages of docs/how-to/: what they give to copy is whole and right. Proxies have a test of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import Program
from tests.how_to.proxies import PAGES, block
from tests.http.daemon import Daemon
from tvix_store.testing.content import noise

TEXTS = {page.name: page.read_text() for page in sorted(PAGES.glob("*.md"))}
TASKS = [name for name in TEXTS if name != "README.md"]


def blocks(language: str) -> list[tuple[str, str]]:
    """All blocks of a language, each with its page."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return [(name, each) for name, text in TEXTS.items() for each in re.findall(pattern, text, re.MULTILINE | re.DOTALL)]


def test_the_index_has_every_page() -> None:
    assert set(re.findall(r"\(([a-z-]+\.md)\)", TEXTS["README.md"])) == set(TASKS)


@pytest.mark.parametrize("page", TASKS)
def test_a_page_says_its_goal_what_to_do_how_to_check_it_and_what_can_go_wrong(page: str) -> None:
    text = TEXTS[page]
    places = [text.index(each) for each in ("**Goal:**", "\n## Do it\n", "\n## Check it\n", "\n## What can go wrong\n")]
    assert places == sorted(places)


def test_the_files_that_a_page_links_to_exist() -> None:
    coming = {"../pushing.md", "../hook.md"}
    links = {(name, link) for name, text in TEXTS.items() for link in re.findall(r"\]\(([^):#]+)[^):]*\)", text)}
    assert {(name, link) for name, link in links if link not in coming and not (PAGES / link).exists()} == set()


def test_the_expressions_are_those_of_nix() -> None:
    for _, each in blocks("nix"):
        command = [programs.require("nix-instantiate"), "--parse", "-"]
        environment = {**os.environ, "NIX_REMOTE": "dummy://"}
        done = subprocess.run(command, input=each, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_program_takes_the_configurations(tmp_path: Path) -> None:
    found = blocks("toml")
    assert len(found) == 3
    program = Program(tmp_path)
    program.environment["TVIX_STORE_CONFIG"] = str(config := tmp_path / "config.toml")
    for name, each in found:
        config.write_text(each)
        checked = program.run("config", "check")
        # Whether a credential is there can be told by the service alone.
        assert checked.code == 0, (name, checked.error)


def test_a_pull_through_keeps_what_it_has_fetched(tmp_path: Path) -> None:
    """Another local cache is in the place of cache.nixos.org."""
    source = Program(tmp_path)
    (tmp_path / "hello").write_bytes(noise(100_000, "pulled through"))
    path = source("import", tmp_path / "hello")
    source("copy", "--quiet", "--to", f"file://{tmp_path}/cache", path)
    text = block("pull-through.md", "toml")
    assert "https://cache.nixos.org" in text
    (tmp_path / "config.toml").write_text(
        text.replace("https://cache.nixos.org", f"file://{tmp_path}/cache?require-signatures=false")
    )
    daemon = Daemon(tmp_path / "daemon")
    daemon.program.environment["TVIX_STORE_CONFIG"] = str(tmp_path / "config.toml")
    daemon.start()
    try:
        narinfo = daemon.narinfo(path).decode()
        assert daemon.paths() == []
        [url] = re.findall(r"^URL: (.*)$", narinfo, re.MULTILINE)
        fetched = daemon.get(f"/{url}")
        assert fetched.status == 200
        assert daemon.paths() == [path]
        shutil.rmtree(tmp_path / "cache")
        assert daemon.get(f"/{url}").body == fetched.body
    finally:
        daemon.stop()

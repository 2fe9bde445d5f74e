"""What `tvix-store import` says of its work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.program import Program


def test_it_says_how_much_is_new(tvix_store: Program, tree: Path) -> None:
    first = tvix_store.run("import", tree)
    again = tvix_store.run("import", tree)
    (tree / "text").write_bytes(b"another text\n")
    changed = tvix_store.run("import", tree)
    assert re.fullmatch(r"1\.43 MiB new, 0 B were there \(5 files\); \d+\.\d s\n", first.error)
    assert again.error.startswith("0 B new, 1.43 MiB were there (5 files); ")
    assert changed.error.startswith("13 B new, 1.43 MiB were there (5 files); ")


def test_of_several_trees_it_tells_the_sum(tvix_store: Program, tree: Path) -> None:
    ended = tvix_store.run("import", tree / "text", tree / "big", tree / "bin", tree / "text")
    assert ended.error.startswith("1.43 MiB new, 10 B were there (4 files); ")
    assert len(ended.lines) == 4


@pytest.mark.parametrize("form", ["nar", "tar"])
def test_of_an_archive_it_tells_the_same(tvix_store: Program, tree: Path, form: str) -> None:
    tvix_store("export", "--format", form, tvix_store("import", tree), "archive")
    for store, said in ((tvix_store.store, "0 B new, 1.43 MiB were there"), ("./empty", "1.43 MiB new, 0 B were there")):
        ended = tvix_store.run("import", f"--{form}", "archive", "--name", "tree", "--store", store)
        assert ended.error.startswith(f"{said} (5 files); ")


def test_who_wants_quiet_or_json_hears_nothing_else(tvix_store: Program, tree: Path) -> None:
    assert tvix_store.run("--quiet", "import", tree).error == ""
    ended = tvix_store.run("import", "--json", tree)
    assert ended.error == ""
    assert len(json.loads(ended.output)) == 1

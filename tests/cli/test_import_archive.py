"""`tvix-store import --nar` and `--tar`: the way back of `export`, held against `nix-store` and `tar`."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import TVIX_STORE, Program
from tvix_store.nar import MAX_DEPTH
from tvix_store.testing.trees import nar as nar_of
from tvix_store.testing.trees import read

OPTION = {"nar": "--nar", "tar": "--tar"}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Program:
    """The program on another store."""
    (tmp_path / "elsewhere").mkdir()
    return Program(tmp_path / "elsewhere")


@pytest.fixture(params=["nar", "tar"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def exported(tvix_store: Program, tree: Path, form: str) -> tuple[str, Path]:
    """The store path of a tree, and an archive of it."""
    path = tvix_store("import", tree)
    tvix_store("export", "--format", form, path, f"tree.{form}")
    return path, tvix_store.directory / f"tree.{form}"


def tar_of(directory: Path, *names: str | Path) -> bytes:
    return subprocess.run(["tar", "-c", *names], cwd=directory, stdout=subprocess.PIPE, check=True).stdout


def stored(program: Program) -> dict[str, int]:
    """How many of each kind the store has."""
    counted = json.loads(program("stats", "--json"))
    return {kind: counted[kind] for kind in ("pathInfos", "directories", "chunks")}


NOTHING = {"pathInfos": 0, "directories": 0, "chunks": 0}


def test_what_was_exported_gets_its_store_path_again(tvix_store: Program, elsewhere: Program, tree: Path, form: str) -> None:
    path, archive = exported(tvix_store, tree, form)
    assert elsewhere("import", OPTION[form], archive) == path
    assert elsewhere("list") == path
    elsewhere("export", path, "out")
    assert read(elsewhere.directory / "out") == read(tree)
    assert json.loads(elsewhere("info", "--json", path)) == json.loads(tvix_store("info", "--json", path))


@pytest.mark.parametrize("inside", ["text", "empty", "bin/hello", "void", "dangling"])
def test_single_nodes_come_back(tvix_store: Program, elsewhere: Program, tree: Path, form: str, inside: str) -> None:
    path = tvix_store("import", tree / inside)
    archive = tvix_store.run("export", "--format", form, path, "-").output
    assert elsewhere("import", OPTION[form], "-", "--name", path.partition("-")[2], data=archive) == path


def test_a_nar_of_nix_is_read(tvix_store: Program, tree: Path) -> None:
    nar = subprocess.run([programs.require("nix-store"), "--dump", tree], stdout=subprocess.PIPE, check=True).stdout
    assert tvix_store("import", "--nar", "-", "--name", "tree", data=nar) == tvix_store("import", tree)


@pytest.mark.parametrize("arguments", [("tree",), (".",)], ids=["with its directory", "without"])
def test_a_tar_of_tar_is_read(tvix_store: Program, tree: Path, arguments: tuple[str]) -> None:
    (tree / "hard").hardlink_to(tree / "big")
    archive = tar_of(tree.parent if arguments == ("tree",) else tree, *arguments)
    assert tvix_store("import", "--tar", "-", "--name", "tree", data=archive) == tvix_store("import", tree)


def test_several_entries_are_a_directory_of_them(tvix_store: Program, tree: Path) -> None:
    path = tvix_store("import", "--tar", "-", "--name", "some", data=tar_of(tree, "bin", "text"))
    assert tvix_store("ls", path) == "bin\ntext"


def test_a_name_can_be_chosen(tvix_store: Program, tree: Path, form: str) -> None:
    path, archive = exported(tvix_store, tree, form)
    assert tvix_store("import", "--name", "other", OPTION[form], archive).endswith("-other")
    archive.rename(archive.with_name(f"a b.{form}"))
    refused = tvix_store.run("import", OPTION[form], f"a b.{form}")
    assert refused.code == 3
    assert refused.error.startswith(f"tvix-store: error: a b.{form}: ")
    assert "choose a name with --name" in refused.error
    assert "not a store path name" in tvix_store.run("import", OPTION[form], f"a b.{form}", "--name", "a b").error
    assert path in tvix_store("list")


def test_json_has_the_path_info(tvix_store: Program, tree: Path, form: str) -> None:
    path, archive = exported(tvix_store, tree, form)
    assert json.loads(tvix_store("import", "--json", OPTION[form], archive)) == [json.loads(tvix_store("path-info", "get", path))]


def test_content_alone_is_stored_by_either_rule(tvix_store: Program, elsewhere: Program, tree: Path, form: str) -> None:
    _, archive = exported(tvix_store, tree, form)
    for rule in ("snix", "documented"):
        options = ("--no-path-info", "--directory-size-rule", rule)
        assert elsewhere("import", *options, OPTION[form], archive) == tvix_store("import", *options, tree)
    assert elsewhere("list") == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give a PATH, --nar or --tar"),
        (("--nar", "a", "b"), "give PATHs, or one of --nar and --tar"),
        (("--nar", "a", "--tar", "b"), "give PATHs, or one of --nar and --tar"),
        (("--nar", "-"), "the standard input has no name; choose one with --name"),
        (("--tar", "a", "--flat"), "--flat does not go with an archive"),
        (("--tar", "a", "--reread"), "--reread does not go with an archive"),
        (("--tar", ""), "the path is empty"),
    ],
)
def test_a_wrong_command_line_is_refused(tvix_store: Program, arguments: tuple[str, ...], complaint: str) -> None:
    ended = tvix_store.run("import", *arguments)
    assert ended.code == 2
    assert complaint in ended.error


def test_an_archive_that_is_not_there_is_said_to_be_missing(tvix_store: Program, form: str) -> None:
    ended = tvix_store.run("import", OPTION[form], "absent")
    assert (ended.code, ended.error) == (4, "tvix-store: error: cannot open absent: No such file or directory\n")


def test_a_damaged_archive_leaves_nothing(tvix_store: Program, elsewhere: Program, tree: Path, form: str) -> None:
    _, archive = exported(tvix_store, tree, form)
    damaged = bytearray(gzip.compress(archive.read_bytes(), 0))
    damaged[-8] ^= 1  # the checksum, behind everything
    (elsewhere.directory / "bad").write_bytes(damaged)
    ended = elsewhere.run("import", OPTION[form], "bad")
    assert ended.code == 3
    assert re.fullmatch("tvix-store: error: bad: gzip: .*damaged.*\n", ended.error)
    assert stored(elsewhere) == NOTHING


def test_a_hostile_tar_leaves_nothing_and_is_named(tvix_store: Program, tree: Path) -> None:
    command = ["tar", "-c", "--absolute-names", "--transform", "s,^text$,../text,", "big", "text"]
    archive = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, check=True).stdout
    ended = tvix_store.run("import", "--tar", "-", "--name", "x", data=archive)
    assert ended.code == 3
    assert ended.error == "tvix-store: error: the standard input: entry '../text': '../text' leads out of a directory\n"
    assert stored(tvix_store) == NOTHING


def test_the_wrong_kind_of_archive_is_named(tvix_store: Program, tree: Path) -> None:
    tvix_store("export", "--format", "nar", tvix_store("import", tree), "tree.nar")
    assert "tree.nar: this is a NAR, and not a tar" in tvix_store.run("import", "--tar", "tree.nar").error


def test_a_tar_that_is_too_deep_for_nix_is_imported_with_a_warning(tvix_store: Program, tmp_path: Path) -> None:
    (tmp_path / "deep" / "/".join("d" * MAX_DEPTH)).mkdir(parents=True)
    ended = tvix_store.run("import", "--tar", "-", "--name", "deep", data=tar_of(tmp_path, "deep"))
    assert ended.code == 0
    assert f"{MAX_DEPTH + 1} nodes inside each other; Nix reads at most {MAX_DEPTH}" in ended.error


def test_a_nar_that_is_too_deep_for_nix_is_refused(tvix_store: Program, tmp_path: Path) -> None:
    (tmp_path / "deep" / "/".join("d" * MAX_DEPTH)).mkdir(parents=True)
    ended = tvix_store.run("import", "--nar", "-", "--name", "deep", data=nar_of(read(tmp_path / "deep")))
    assert ended.code == 3


def test_an_import_from_a_silent_writer_can_be_ended(tvix_store: Program, form: str) -> None:
    command: list[str | Path] = [TVIX_STORE, "import", OPTION[form], "-", "--name", "x"]
    with subprocess.Popen(command, env=tvix_store.environment, cwd=tvix_store.directory, stdin=subprocess.PIPE) as running:
        while not tvix_store.store.exists():  # by then, it has begun
            time.sleep(0.02)
        running.terminate()
        assert running.wait(20) == 143

"""`tvix-store import`, held against the real `nix-store --add`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import programs
from tests.cli.program import Program
from tvix_store.operations.ingest import files_cache

WITHOUT_ROOTS_POWERS = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)


pytestmark = pytest.mark.nix


def added_by_nix(path: Path, scratch: Path, *options: str) -> str:
    nix_store = programs.require("nix-store")
    done = subprocess.run([nix_store, "--store", scratch, *(options or ("--add",)), path], check=True, capture_output=True)
    return done.stdout.decode().strip()


def test_a_tree_gets_the_store_path_that_nix_gives_it(tvix_store: Program, tree: Path) -> None:
    assert tvix_store("import", tree) == added_by_nix(tree, tvix_store.directory / "nix")


def test_files_symlinks_and_empty_directories_get_the_store_paths_that_nix_gives_them(tvix_store: Program, tree: Path) -> None:
    scratch = tvix_store.directory / "nix"
    paths = [tree / name for name in ("text", "empty", "bin/hello", "bin/sh", "dangling", "void")]
    assert tvix_store("import", *paths).splitlines() == [added_by_nix(path, scratch) for path in paths]


def test_a_flat_file_gets_the_store_path_that_nix_gives_it(tvix_store: Program, tree: Path) -> None:
    path = tree / "big"
    assert tvix_store("import", "--flat", path) == added_by_nix(path, tvix_store.directory / "nix", "--add-fixed", "sha256")


def test_names_begin_with_a_dot_where_nix_allows_it(tvix_store: Program, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in (".p10k.zsh", "..p10k", "...-a")]
    for path in paths:
        path.write_text("text")
    assert tvix_store("import", *paths).splitlines() == [added_by_nix(path, tvix_store.directory / "nix") for path in paths]
    refused = tmp_path / ".-a"
    refused.write_text("text")
    assert "not a store path name" in tvix_store.run("import", refused).error
    assert tvix_store("import", "--name", "a", refused).endswith("-a")


def test_a_name_can_be_chosen(tvix_store: Program, tree: Path) -> None:
    assert tvix_store("import", "--name", "hello-2.12", tree).endswith("-hello-2.12")


def test_importing_twice_changes_nothing(tvix_store: Program, tree: Path) -> None:
    first = tvix_store("import", tree)
    assert tvix_store("import", tree) == first
    assert tvix_store("list") == first


def test_what_looks_unchanged_is_read_again_only_where_that_is_asked_for(tvix_store: Program, tree: Path) -> None:
    if files_cache._mount(tree.stat().st_dev) is None:
        pytest.skip("the temporary directory is on a file system that nothing is remembered of")
    for n in range(100):
        (tree / f"file {n}").write_text(str(n))
    time.sleep(2.1)  # what was changed within two seconds is not remembered
    first = tvix_store("import", tree)
    assert not any("file 99" in line for line in opened_files(tvix_store, "import", tree)[first])
    assert any("file 99" in line for line in opened_files(tvix_store, "import", "--reread", tree)[first])


def opened_files(tvix_store: Program, *arguments: str | Path) -> dict[str, list[str]]:
    """The system calls that open files, by what a command prints."""
    log = tvix_store.directory / "strace"
    strace = (programs.require("strace"), "--follow-forks", "--trace=openat", f"--output={log}")
    ended = tvix_store.run(*arguments, under=strace)
    assert ended.code == 0, ended.error
    return {ended.output.decode().strip(): log.read_text(errors="replace").splitlines()}


def test_without_path_info_the_digest_of_the_content_is_printed(tvix_store: Program, tree: Path) -> None:
    digest = tvix_store("import", "--no-path-info", tree / "text")
    assert tvix_store("list") == ""
    assert tvix_store("cat", digest) == "some text"


def test_the_size_rule_of_snix_gives_nested_trees_another_digest(tvix_store: Program, tree: Path) -> None:
    documented = tvix_store("import", "--no-path-info", tree)
    assert tvix_store("import", "--no-path-info", "--directory-size-rule", "snix", tree) != documented


def test_json_has_the_path_info(tvix_store: Program, tree: Path) -> None:
    (record,) = json.loads(tvix_store("import", "--json", tree))
    assert list(record) == ["path", "root", "narHash", "narSize", "references", "deriver", "signatures", "ca"]
    assert record == json.loads(tvix_store("path-info", "get", record["path"]))


def test_a_fifo_is_refused_by_name(tvix_store: Program, tree: Path) -> None:
    os.mkfifo(tree / "bin/fifo")
    assert_refused(tvix_store, tree, f"{tree}/bin/fifo is a FIFO")


def test_a_socket_is_refused_by_name(tvix_store: Program, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "bin")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")  # not by its whole path, of which there may be 107 bytes
        assert_refused(tvix_store, tree, f"{tree}/bin/socket is a socket")


def test_a_device_is_refused_by_name(tvix_store: Program) -> None:
    assert_refused(tvix_store, Path("/dev/null"), "/dev/null is a character device")


def assert_refused(tvix_store: Program, path: Path, reason: str) -> None:
    ended = tvix_store.run("import", path)
    assert ended.code == 3
    assert ended.error == f"tvix-store: error: {reason}; only directories, regular files and symlinks can be stored\n"
    assert tvix_store("list") == ""


def test_what_is_not_there_is_said_to_be_missing(tvix_store: Program) -> None:
    ended = tvix_store.run("import", "nothing")
    assert (ended.code, ended.error) == (4, "tvix-store: error: cannot open nothing: No such file or directory\n")


def test_an_unreadable_directory_is_named(tvix_store: Program, tree: Path) -> None:
    (tree / "void").chmod(0)
    ended = tvix_store.run("import", tree, under=WITHOUT_ROOTS_POWERS)
    assert (ended.code, ended.error) == (8, f"tvix-store: error: cannot read {tree / 'void'}: Permission denied\n")


def test_a_name_that_no_store_path_may_have_is_refused(tvix_store: Program, tree: Path) -> None:
    ended = tvix_store.run("import", "--name", "two words", tree)
    assert ended.code == 3
    assert "not a store path name: 'two words'" in ended.error


@pytest.mark.parametrize(("path", "name"), [("/", ""), ("two words", "two words")])
def test_a_file_whose_name_no_store_path_may_have_needs_another(tvix_store: Program, path: str, name: str) -> None:
    ended = tvix_store.run("import", path)
    assert ended.code == 3
    assert ended.error.startswith(f"tvix-store: error: {path}: not a store path name: {name!r}")
    assert ended.error.endswith("; choose a name with --name\n")


def test_one_name_for_many_paths_is_refused(tvix_store: Program, tree: Path) -> None:
    assert tvix_store.run("import", "--name", "x", tree / "text", tree / "big").code == 2


def test_paths_before_a_bad_one_are_imported(tvix_store: Program, tree: Path) -> None:
    ended = tvix_store.run("import", tree / "text", "nothing")
    assert ended.code == 4
    assert ended.lines == [tvix_store("list")]


def test_an_import_that_fails_leaves_nothing(tvix_store: Program, tree: Path) -> None:
    tvix_store("import", tree / "text")
    before = held(tvix_store)
    (tree / "large").write_bytes(os.urandom(20_000_000))
    os.mkfifo(tree / "zzz")
    assert tvix_store.run("import", tree).code == 3
    assert held(tvix_store) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_import_that_is_ended_leaves_nothing_that_the_next_does_not_reuse(
    tvix_store: Program, tree: Path, number: signal.Signals
) -> None:
    tvix_store("import", tree / "text")
    before = held(tvix_store)
    packs = tvix_store.store / "packs"
    (tree / "large").write_bytes(os.urandom(30_000_000))
    os.mkfifo(tree / "zzz")  # so that it fails, should it come to its end before the signal
    with tvix_store.start("import", tree) as running:
        while running.poll() is None and sum(pack.stat().st_size for pack in packs.iterdir()) < 10_000_000:
            time.sleep(0.001)
        running.send_signal(number)
    if number != signal.SIGKILL:
        assert held(tvix_store) == before
    tvix_store("import", tree / "big")
    assert sum(pack.stat().st_size for pack in packs.iterdir()) < 10_000_000


def held(tvix_store: Program) -> dict[str, int]:
    """What the store holds; its own files may take a page more or less."""
    counts: dict[str, int] = json.loads(tvix_store("stats", "--json"))
    return {name: count // (1 << 20) if name == "diskBytes" else count for name, count in counts.items()}


def test_a_file_that_is_overwritten_in_place_all_the_time_is_refused_by_name(tvix_store: Program, tree: Path) -> None:
    changing = tree / "changing"
    changing.write_bytes(bytes(20_000_000))
    endless = f"while True:\n for n in range(256):\n  f = open({str(changing)!r}, 'r+b'); f.write(bytes([n]) * 20_000_000)"
    with subprocess.Popen([sys.executable, "-c", endless]) as writer:
        try:
            ended = tvix_store.run("import", tree)
        finally:
            writer.kill()
    assert ended.code == 3
    assert ended.error == (f"tvix-store: error: {changing} changed while it was read; import it again when nothing writes to it\n")
    assert tvix_store("list") == ""


def test_an_empty_path_is_refused(tvix_store: Program) -> None:
    ended = tvix_store.run("import", "")
    assert (ended.code, tvix_store.store.exists()) == (2, False)
    assert "the path is empty; write . for the current directory (see tvix-store import --help)" in ended.error


@pytest.mark.parametrize("path", ["/proc/self/status", "/proc/version"])
def test_a_file_whose_size_is_not_told_is_refused_with_the_way_out(tvix_store: Program, path: str) -> None:
    ended = tvix_store.run("import", path)
    assert ended.code == 3
    assert ended.error == (
        f"tvix-store: error: {path} does not hold the 0 bytes that its file system tells, as files of /proc and /sys; "
        "copy it, and import the copy\n"
    )


@pytest.mark.parametrize("directories", [63, 64])
def test_a_tree_that_is_too_deep_for_nix_is_imported_with_a_warning(tvix_store: Program, directories: int) -> None:
    bottom = tvix_store.directory / "deep" / Path(*["d"] * (directories - 1))
    bottom.mkdir(parents=True)
    (bottom / "file").write_text("deep")
    ended = tvix_store.run("--quiet", "import", "deep")
    assert (ended.code, ended.lines) == (0, [tvix_store("list")])
    too_deep = "deep has 65 nodes inside each other; Nix reads at most 64, and cannot fetch the path"
    assert ended.error == ("" if directories < 64 else f"tvix-store: warning: {too_deep}\n")


def test_json_is_whole_when_a_path_is_bad(tvix_store: Program, tree: Path) -> None:
    ended = tvix_store.run("import", "--json", tree / "text", "nothing")
    assert ended.code == 4
    assert [record["path"] for record in json.loads(ended.output)] == [tvix_store("list")]
    assert json.loads(tvix_store.run("import", "--json", "nothing").output) == []

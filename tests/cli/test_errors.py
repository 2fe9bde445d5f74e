"""How the program fails: a line on stderr, and an exit code that tells the kind of error."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE, Program
from tvix_store import errors
from tvix_store.cli.exit_codes import exit_code

CODES = {
    errors.InvalidError(""): 3,
    errors.NotFoundError("blob", ""): 4,
    errors.IncompleteError(""): 5,
    errors.ConflictError(""): 5,
    errors.CorruptError(""): 6,
    errors.UnavailableError(""): 7,
    errors.DeniedError(""): 8,
    errors.ExhaustedError(""): 9,
    errors.UnsupportedError(""): 10,
    errors.RemoteError(""): 11,
    errors.NoStoreError(""): 12,
    OSError(errno.ENOSPC, ""): 9,
    OSError(errno.ENOENT, ""): 4,
    OSError(errno.EACCES, ""): 8,
    OSError(errno.EEXIST, ""): 5,
    OSError(errno.EISDIR, ""): 3,
    OSError(errno.ENAMETOOLONG, ""): 3,
    OSError(errno.EPIPE, ""): 141,
    OSError(errno.EIO, ""): 7,
    KeyError(""): 1,
}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=repr)
def test_every_kind_of_error_has_its_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_no_kind_of_error_is_a_bug() -> None:
    kinds = set(errors.StoreError.__subclasses__())
    assert kinds == {type(error) for error in CODES if isinstance(error, errors.StoreError)}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lss"], 2, "No such command 'lss'. Did you mean 'ls'? (see tvix-store --help)"),
        (["path-info", "singn"], 2, "No such command 'singn'. Did you mean 'sign'? (see tvix-store path-info --help)"),
        (["ls", "--jsn", "x"], 2, "No such option '--jsn'. Did you mean '--json'? (see tvix-store ls --help)"),
        (["cat"], 2, "Missing argument 'PATH...' (see tvix-store cat --help)"),
        (["completion"], 2, None),
        (["list", "--store", "memroy://"], 3, None),
        (["list", "--store", "/dev/null/store"], 3, None),
    ],
)
def test_an_error_is_one_line(tvix_store: Program, arguments: list[str], code: int, message: str | None) -> None:
    ended = tvix_store.run(*arguments)
    assert ended.code == code
    assert ended.output == b""
    assert ended.error.startswith("tvix-store: error: ")
    assert ended.error.count("\n") == 1
    if message:
        assert ended.error == f"tvix-store: error: {message}\n"


def test_debug_shows_where_an_error_comes_from(tvix_store: Program) -> None:
    ended = tvix_store.run("--debug", "ls", "hello", "--store", "memory://")
    assert ended.code == 3
    assert "Traceback" in ended.error
    assert ended.error.splitlines()[-1].startswith("tvix-store: error: not a store path")


def test_a_full_disk_under_the_output_is_said_to_be_full(tvix_store: Program) -> None:
    ended = tvix_store.run("list", "--json", "--store", "memory://", under=("sh", "-c", 'exec "$@" > /dev/full', "sh"))
    assert (ended.code, ended.error) == (9, "tvix-store: error: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_file_is_no_bug(tvix_store: Program, tree: Path, closed: str) -> None:
    for arguments in (("import", tree), ("list", "--json")):
        ended = tvix_store.run(*arguments, under=("sh", "-c", f'exec "$@" {closed}', "sh"))
        assert ended.code == 0
        assert "error" not in ended.error
    assert tvix_store("path-info", "verify", "--all").endswith(": good")
    ended = tvix_store.run("ls", "hello", under=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert (ended.code, ended.output, "not a store path" in ended.error) == (3, b"", "2>&-" not in closed)


def test_a_daemon_without_standard_files_serves(tvix_store: Program) -> None:
    """Whatever it opens first must not get the number of its standard error."""
    socket = tvix_store.directory / "socket"
    command: list[str | Path] = ["sh", "-c", 'exec "$0" daemon --listen-address "$1" <&- >&- 2>&-', TVIX_STORE, socket]
    with subprocess.Popen(command, cwd=tvix_store.directory, env=tvix_store.environment) as daemon:
        assert tvix_store("list", "--json", "--store", f"grpc+unix://{socket}?wait-connect=1") == "[]"
        daemon.terminate()
        assert daemon.wait(30) == 0


def test_settings_that_are_refused_leave_no_directory(tvix_store: Program, tree: Path) -> None:
    for setting in ("chunk_average=1", "compression_level=99", "threads=-1"):
        assert tvix_store.run("import", tree, "--store", f"local://{tvix_store.directory}/new?{setting}").code == 3
    assert not (tvix_store.directory / "new").exists()

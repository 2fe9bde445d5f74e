"""Configuration files: which ones count, what they say, and what is refused in them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.configured import contexts, parsed, places
from tests.cli.program import Program
from tvix_store.cli.config_file import ConfigurationError, read_config_file
from tvix_store.cli.configuration import unfit
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.settings import TableType
from tvix_store.errors import InvalidError

__all__ = ["places"]  # a fixture


def addresses(*words: str, **where: tuple[str, ...]) -> dict[str, str | None]:
    with parsed(*words, **where) as context:
        return context.ensure_object(Invocation).addresses()


def refusal(*words: str, **where: tuple[str, ...]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        list(contexts(words, *where.get("arguments", ()), before=where.get("before", ())))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value.message


def test_the_command_line_wins_over_variables_and_these_over_files(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, system = places
    workers = []
    for step in ("system", "user", "variable", "typed"):
        if step == "system":
            system.write_text("[daemon]\nworkers = 1\npriority = 10")
        elif step == "user":
            user.write_text("[daemon]\nworkers = 2")
        elif step == "variable":
            monkeypatch.setenv("TVIX_STORE_DAEMON_WORKERS", "3")
        context = parsed("daemon", arguments=("--workers", "4") if step == "typed" else ())
        assert context.params["priority"] == 10
        workers.append(context.params["workers"])
    assert workers == [1, 2, 3, 4]


@pytest.mark.parametrize("where", ["before", "arguments", "variable"])
def test_a_named_file_is_the_only_one(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for place in places:
        place.write_text("[daemon]\nworkers = 2")
    (tmp_path / "other.toml").write_text('store = "/other"')
    if where == "variable":
        monkeypatch.setenv("TVIX_STORE_CONFIG", str(tmp_path / "other.toml"))
        context = parsed("daemon")
    else:
        context = parsed("daemon", **{where: ("--config", str(tmp_path / "other.toml"))})
    assert context.params["workers"] is None
    assert context.obj.addresses()["blobs"] == "/other"


def test_no_file_is_read_from_dev_null(places: tuple[Path, Path]) -> None:
    places[0].write_text("nonsense")
    assert addresses("list", arguments=("--config", "/dev/null")) == dict.fromkeys(("blobs", "directories", "path_infos"))


def test_a_file_that_is_named_behind_the_command_counts(places: tuple[Path, Path], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f'store = "/{name}"')
    found = addresses("list", before=("--config", str(tmp_path / "a")), arguments=("--config", str(tmp_path / "b")))
    assert found["blobs"] == "/b"


def test_shared_options_stand_at_the_top_or_in_the_table_of_a_command_or_group(places: tuple[Path, Path]) -> None:
    places[0].write_text('store = "/top"\n[path-info]\nstore = "/group"\n[path-info.get]\nstore = "/get"\n[list]\nstore = "/list"')
    places[1].write_text('[stats]\nstore = "/stats"')
    found = {words: addresses(*words)["blobs"] for words in (("path-info", "verify"), ("list",), ("stats",))}
    assert found == {("path-info", "verify"): "/group", ("list",): "/list", ("stats",): "/stats"}
    assert addresses("path-info", "get", arguments=("x",))["blobs"] == "/get"
    assert addresses("ls", arguments=("x",))["blobs"] == "/top"


def test_a_services_own_address_wins_over_the_stores_within_files_only(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places[0].write_text('store = "/a"\npath-info-service-addr = "/b"')
    assert addresses("list") == {"blobs": "/a", "directories": "/a", "path_infos": "/b"}
    monkeypatch.setenv("TVIX_STORE", "/c")
    assert set(addresses("list").values()) == {"/c"}
    assert set(addresses("list", arguments=("--store", "/d")).values()) == {"/d"}


def test_a_variable_switches_off_what_a_file_switches_on(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    places[0].write_text("quiet = true\n[daemon]\nread-only = true")
    monkeypatch.setenv("TVIX_STORE_DAEMON_READ_ONLY", "false")
    monkeypatch.setenv("TVIX_STORE_QUIET", "0")
    context = parsed("daemon")
    assert not context.params["read_only"]
    assert not context.obj.quiet


WRONG = {
    'stroe = "x"': "1: stroe: unknown key; did you mean store?",
    "\n\n[deamon]\nworkers = 1": "3: deamon: unknown key; did you mean daemon?",
    '[daemon]\nlisten_address = ["a"]': "2: daemon.listen_address: unknown key in [daemon]; did you mean listen-address?",
    "workers = 3": "1: workers: unknown key; it belongs into [daemon]",
    "daemon = 3": "1: daemon: expected a table, as in [daemon]; got an integer",
    "[[daemon]]\nworkers = 1": "1: daemon: expected a table, as in [daemon]; got a list",
    "[daemon]\nworkers = '3'": "2: daemon.workers: expected an integer; got a string",
    "[daemon]\nworkers = true": "2: daemon.workers: expected an integer; got true",
    "[daemon]\nworkers = 1.5": "2: daemon.workers: expected an integer; got a float",
    "[daemon]\nworkers = 0": "2: daemon.workers: 0 is too little; the least is 1",
    "[daemon]\nworkers = 1979-05-27": "2: daemon.workers: expected an integer; got a date or time",
    "daemon.body-timeout = nan": "1: daemon.body-timeout: expected a number; got nan",
    "daemon.read-only = 1": "1: daemon.read-only: expected true or false; got an integer",
    'daemon.read-only = "yes"': "1: daemon.read-only: expected true or false; got a string",
    '[daemon]\n#\nsubstituters = "a"': "3: daemon.substituters: expected a list of strings; got a string",
    "daemon.substituters = [\n'a',\n5]": "1: daemon.substituters: expected a list of strings; got an integer",
    "[daemon]\nnar-compression = 'xz'": "2: daemon.nar-compression: 'xz' is not one of 'zstd', 'none'",
    "[daemon]\ntls-key = ''": "2: daemon.tls-key: the path is empty; write . for the current directory",
    "[daemon]\ntls-key = 'credential:../x'": (
        "2: daemon.tls-key: 'credential:../x' does not name a credential, as in credential:cache-key"
    ),
    "store = {a = 1}": "1: store: expected a string; got a table",
    "version = true": "1: version: unknown key; `tvix-store config show` lists the known ones",
    'config = "x"': "1: config: expected a table, as in [config]; got a string",
    '"\x1b[2J" = 1'.replace("\x1b", "\\u001b"): "1: '\\x1b[2J': unknown key; `tvix-store config show` lists the known ones",
    'a = """\n\n"""\nb = ]': "4: not TOML: Invalid value",
    "store = ": "1: not TOML: Invalid value",
    "store = [1,\n2,": "2: not TOML: Invalid value",
    "store = 'a'\nstore = 'b'": "2: not TOML: Cannot overwrite a value",
    "[daemon]\n[daemon]": "2: not TOML: Cannot declare ('daemon',) twice",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_file_line_and_key(places: tuple[Path, Path], text: str) -> None:
    places[0].write_text(text)
    assert refusal("daemon") == f"{places[0]}:{WRONG[text]}"


class Pair(TableType[tuple[str, str]]):
    name = "pair"
    example = "a b"

    def made(self, value: str | Mapping[str, Any], param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        words = value.split() if isinstance(value, str) else list(value.values())
        if len(words) != 2:
            raise InvalidError("a pair has two words")
        return words[0], words[1]


def test_an_option_may_take_tables(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    option = click.Option(["--pair"], multiple=True, type=Pair(), envvar="PAIRS")
    assert unfit(option, [{"x": "a", "y": "b"}, "c d"]) is None
    assert unfit(option, [{"x": "a"}]) == "a pair has two words"
    assert unfit(option, [1]) == "expected a list of strings or tables; got an integer"
    monkeypatch.setenv("PAIRS", "a b;c d")
    assert option.value_from_envvar(click.Context(click.Command(None))) == ["a b", "c d"]
    places[0].write_text("\n[[daemon.pairs]]\nx = 'a'\n\n[[daemon.pairs]]\nx = 'b'\n")
    file = read_config_file(str(places[0]))
    assert file.place(("daemon", "pairs")) == f"{places[0]}:2"


def test_other_commands_are_not_stopped_by_a_table_that_is_not_theirs(places: tuple[Path, Path]) -> None:
    places[0].write_text('store = "/a"\n[daemon]\nworkers = "x"')
    assert addresses("list")["blobs"] == "/a"


def test_a_password_is_masked_in_messages(places: tuple[Path, Path]) -> None:
    places[0].write_text("[daemon]\nnar-compression = 'https://user:word@host?token=abc'")
    assert "'https://***@host?token=***'" in refusal("daemon")


HOSTILE = {
    b"\0": "1: not TOML: Invalid statement",
    b"\n\xff": "2: not TOML: the file is not UTF-8",
    bytes(range(256)): "2: not TOML: the file is not UTF-8",
    b"a = " + b"[" * 100_000: " not TOML: nested too deeply",
    b"a = " + b"{a=" * 50_000: " not TOML: nested too deeply",
    b"a = " + b"9" * 100_000: " not TOML: Exceeds the limit",
    b"# \n" * 100_000: " larger than 256 KiB, the most that is read",
    b"a." * 100_000 + b"a = 1": " not TOML: nested too deeply",
    b"[" + b"a ." * 50_000 + b"a]": " not TOML: nested too deeply",
    b"\n".join(b"k%d = 1 # [" % number for number in range(10_000)): "1: k0: unknown key",
    b"a." * 90 + b"a = 1": "1: a: unknown key",
    b'a = "' + b"." * 200 + b'"': "1: a: unknown key",
    b"a" * 200_000 + b" = 1": f"1: {'a' * 60}: unknown key",
    b"\n" * 200_000 + b"a = 1": "200001: a: unknown key",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_are_refused_in_a_line(places: tuple[Path, Path], data: bytes) -> None:
    places[0].write_bytes(data)
    message = refusal("daemon")
    assert message.startswith(f"{places[0]}:{HOSTILE[data]}")
    assert len(message) < 500


def test_a_file_that_cannot_be_read_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name, what in {
        "loop": "Too many levels of symbolic links",
        "pipe": "not a regular file",
        "socket": "No such device or address",
        ".": "Is a directory",
        "absent": "No such file or directory",
        "etc/config.toml/x": "No such file or directory",
        "x" * 300: "File name too long",
    }.items():
        path = str(tmp_path / name)
        with pytest.raises((ConfigurationError, OSError)) as caught:
            list(contexts(("list",), "--config", path))
        error = caught.value
        assert (f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)) == f"{path}: {what}"


def test_a_file_of_the_system_that_is_there_is_never_passed_over(places: tuple[Path, Path]) -> None:
    places[1].symlink_to("nowhere")
    with pytest.raises(FileNotFoundError) as caught:
        list(contexts(("list",)))
    assert caught.value.filename == str(places[1])
    places[1].unlink()
    places[1].symlink_to("config.toml")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        list(contexts(("list",)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_files_of_another_user_are_passed_over_and_unreadable_ones_refused(tvix_store: Program) -> None:
    """`sudo -u nobody` with the HOME of somebody else."""
    directory = tvix_store.directory
    home = directory / "home/.config/tvix-store"
    home.mkdir(parents=True)
    (home / "config.toml").write_text("nonsense")
    (home / "config.toml").chmod(0o600)
    for each in [directory, *directory.parents]:
        if each.owner() == "root" and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o011)
    environment = tvix_store.environment | {"HOME": str(directory / "home"), "TVIX_STORE": "memory://"}
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    ended = tvix_store.run("list", environment=environment, under=as_nobody)
    assert (ended.code, ended.error) == (8, f"tvix-store: error: cannot open {home}/config.toml: Permission denied\n")
    (directory / "home").chmod(0o700)
    ended = tvix_store.run("list", "--quiet", environment=environment, under=as_nobody)
    assert (ended.code, ended.error) == (0, "")


@pytest.mark.parametrize(
    ("mode", "text", "warns"),
    [
        (0o644, "store = '/a'", False),
        (0o644, "store = 'https://user:word@host'", True),
        (0o640, "store = 'https://user:word@host'", False),
        (0o646, "store = '/a'", True),
    ],
)
def test_a_file_that_others_may_read_or_change_is_warned_of(tmp_path: Path, mode: int, text: str, warns: bool) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    assert (read_config_file(str(path)).exposure is not None) is warns


def test_a_variable_that_is_almost_right_is_told(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TVIX_STORE_DAEMON_REQUIRE_SIGNATURE", "1")
    monkeypatch.setenv("TVIX_STORE_DAEMON_PORT", "tcp://10.0.0.1:8000")  # of Kubernetes
    monkeypatch.setenv("TVIX_STORE_DAEMON_SERVICE_HOST", "10.0.0.1")
    parsed("daemon")
    name = "TVIX_STORE_DAEMON_REQUIRE_SIGNATURE"
    assert capsys.readouterr().err == f"tvix-store: warning: no option reads the variable {name}; did you mean {name}S?\n"
    parsed("list")
    assert capsys.readouterr().err == ""


def test_a_usage_error_tells_what_was_given_elsewhere(tvix_store: Program) -> None:
    file = tvix_store.directory / ".config/tvix-store/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[copy]\nrequire-signatures = true\n[daemon]\ntls-key = '/key'")
    what = "--from-nix and --from-json go with none of the options for other stores"
    ended = tvix_store.run("copy", "--from-nix", "x")
    assert (ended.code, ended.error) == (
        2,
        f"tvix-store: error: {what} (see tvix-store copy --help; --require-signatures is set by {file}:2)\n",
    )
    environment = tvix_store.environment | {"TVIX_STORE_DAEMON_WORKERS": "many"}
    error = tvix_store.run("daemon", environment=environment).error
    assert error.endswith("(see tvix-store daemon --help; --workers is set by $TVIX_STORE_DAEMON_WORKERS)\n")


def test_help_and_completion_do_not_need_the_configuration(tvix_store: Program) -> None:
    file = tvix_store.directory / ".config/tvix-store/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("nonsense")
    assert "Usage" in tvix_store("daemon", "--help")
    assert "Usage" in tvix_store("--help")
    environment = tvix_store.environment | {
        "_TVIX_STORE_COMPLETE": "bash_complete",
        "COMP_WORDS": "tvix-store daemon --lis",
        "COMP_CWORD": "2",
    }
    ended = tvix_store.run(environment=environment)
    assert (ended.code, ended.lines, ended.error) == (0, ["plain,--listen-address"], "")
    assert tvix_store.run("list").error == f"tvix-store: error: {file}:1: not TOML: Expected '=' after a key in a key/value pair\n"


NAMES = st.sampled_from(["a", "b-c", '"d.e"', "'f#'", '"g\\"]"'])
SCALARS = st.sampled_from(
    [
        "1",
        "true",
        '"x"',
        "'''a\n]\n'''",
        '"""\n#"\\"\n"""',
        "[]",
        "[\n1, # [\n[2],\n]",
        "{x = 1, y = [\n]}",
        "''",
        '"[\\\\"',
        '""""x"""',
    ]
)


@given(st.lists(st.tuples(NAMES, SCALARS, st.sampled_from(["", "\n", "# [ '''\n", "\r\n"])), unique_by=lambda each: each[0]))
def test_every_key_has_its_line(tmp_path_factory: pytest.TempPathFactory, statements: list[tuple[str, str, str]]) -> None:
    text, lines = "", []
    for name, value, before in statements:
        text += before
        lines.append(text.count("\n") + 1)
        text += f"{name} = {value}\n"
    path = tmp_path_factory.getbasetemp() / "lines.toml"
    path.write_bytes(text.encode())
    file = read_config_file(str(path))
    assert [file.place((key,)) for key in file.table] == [f"{path}:{line}" for line in lines]


@given(
    st.text(st.sampled_from("ab.=[]{},'\"\\#\n 1"), max_size=60) | st.binary(max_size=20).map(lambda data: data.decode("latin-1"))
)
def test_any_file_is_read_or_refused_in_a_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode())
    try:
        file = read_config_file(str(path))
    except ConfigurationError as error:
        told = [error.message]
    else:
        told = [file.place((key,)) + ": not TOML: no" for key in file.table]
    for message in told:
        place = re.fullmatch(rf"{re.escape(str(path))}:(\d+:)? not TOML: .*", message)
        assert place is not None
        assert 1 <= int((place[1] or "1:")[:-1]) <= text.count("\n") + 1

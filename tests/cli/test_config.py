"""`tvix-store config show` and `config check`."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.program import Program
from tvix_store.cli.config_show import toml

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


@pytest.fixture
def file(tvix_store: Program) -> Path:
    """The user's configuration file, which is not there yet."""
    path = tvix_store.directory / ".config/tvix-store/config.toml"
    path.parent.mkdir(parents=True)
    del tvix_store.environment["TVIX_STORE"]
    return path


def shown(tvix_store: Program, *arguments: str, **environment: str) -> dict[tuple[str, str], dict[str, Any]]:
    ended = tvix_store.run("config", "show", "--json", *arguments, environment=tvix_store.environment | environment)
    assert ended.code == 0, ended.error
    return {(each["command"], each["option"]): each for each in json.loads(ended.output)["options"]}


def test_show_tells_values_and_where_they_come_from(tvix_store: Program, file: Path) -> None:
    file.write_text("store = '/a'\n\n[daemon]\npriority = 10\nstore = '/b'\n")
    found = shown(tvix_store, "daemon", "--store-dir", "/x", TVIX_STORE_DAEMON_WORKERS="3", TVIX_STORE_QUIET="yes")
    told = {name: (each["value"], each["source"], each["place"]) for name, each in found.items() if each["source"] != "default"}
    assert told == {
        ("", "store"): ("/a", "file", f"{file}:1"),
        ("", "store-dir"): ("/x", "commandline", None),
        ("", "quiet"): (True, "environment", "$TVIX_STORE_QUIET"),
        ("daemon", "workers"): (3, "environment", "$TVIX_STORE_DAEMON_WORKERS"),
        ("daemon", "priority"): (10, "file", f"{file}:4"),
        ("daemon", "store"): ("/b", "file", f"{file}:5"),
    }
    assert found["daemon", "require-references"]["value"] is True
    assert found["daemon", "listen-address"]["variable"] == "TVIX_STORE_DAEMON_LISTEN_ADDRESS"


def filled(table: dict[str, Any]) -> dict[str, Any]:
    """A table without the empty ones within: they have comments alone."""
    within = {name: filled(value) if isinstance(value, dict) else value for name, value in table.items()}
    return {name: value for name, value in within.items() if value != {}}


def test_what_show_prints_is_a_configuration_file(tvix_store: Program, file: Path) -> None:
    text = "store = '/a\\b'\n[daemon]\nworkers = 3\nlisten-address = ['\u00e9\U0001f600', \"\\u001b\"]\n"
    text += "[path-info.sign]\nkey-file = 'k'\n"
    file.write_text(text)
    printed = tvix_store.run("config", "show").output.decode()
    assert filled(tomllib.loads(printed)) == tomllib.loads(text)
    assert "\x1b" not in printed
    assert printed.startswith(f"# {file}\n")
    assert "\n# allow-remote = false\n" in printed


@given(
    st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=4,
    )
)
def test_values_are_written_as_toml_reads_them(value: object) -> None:
    text = toml(value)
    assert tomllib.loads(f"a = {text}")["a"] == value
    assert text.isprintable()


def test_show_masks_passwords_and_tells_no_credentials(tvix_store: Program, file: Path) -> None:
    (tvix_store.directory / "upstreams").write_text("https://c:topsecret@host")
    file.write_text("[daemon]\nsubstituters = ['https://a:topsecret@b/?x=1&token=topsecret', 'credential:upstreams']\n")
    file.chmod(0o600)
    environment = {"CREDENTIALS_DIRECTORY": str(tvix_store.directory), "TVIX_STORE": "grpc+https://a:topsecret@b"}
    for form in ([], ["--json"]):
        ended = tvix_store.run("config", "show", *form, environment=tvix_store.environment | environment)
        assert ended.code == 0, ended.error
        assert b"topsecret" not in ended.output
        assert b"https://***@b/?x=1&token=***" in ended.output
        assert b"credential:upstreams" in ended.output
        assert b"grpc+https://***@b" in ended.output


def test_show_of_a_command_that_is_not_there_is_refused(tvix_store: Program) -> None:
    ended = tvix_store.run("config", "show", "path-info", "sing")
    assert (ended.code, ended.error.partition(" (")[0]) == (2, "tvix-store: error: no such command: path-info sing")


def test_check_tells_all_faults_of_all_commands(tvix_store: Program, file: Path) -> None:
    file.write_text("[daemon]\nworkers = 0\n[path-info.sign]\nkeyfile = 'x'\n[copy]\njobs = 'x'\n")
    environment = tvix_store.environment | {"TVIX_STORE_DAEMON_WORKERS": "many", "TVIX_STORE_PORT": "1", "TVIX_STORE_LIST_JSN": "1"}
    ended = tvix_store.run("config", "check", environment=environment)
    assert ended.lines == [
        f"{file}:2: daemon.workers: 0 is too little; the least is 1",
        f"{file}:4: path-info.sign.keyfile: unknown key in [path-info.sign]; did you mean key-file?",
        f"{file}:6: copy.jobs: expected an integer; got a string",
        "$TVIX_STORE_DAEMON_WORKERS: 'many' is not a whole number",
        "$TVIX_STORE_LIST_JSN: no option reads it; did you mean TVIX_STORE_LIST_JSON?",
        "$TVIX_STORE_PORT: no option reads it",
    ]
    assert (ended.code, ended.error) == (2, "tvix-store: error: 4 faults in the configuration\n")


def test_check_of_good_files(tvix_store: Program, file: Path) -> None:
    assert tvix_store("config", "check").startswith("no configuration file")
    file.write_text("quiet = true")
    assert tvix_store("config", "check") == f"{file}: good"
    (tvix_store.directory / "a").write_text("nonsense")
    (tvix_store.directory / "b").write_text("daemon.tls-key = 'credential:key'")
    assert tvix_store.run("config", "check", "a", "b").lines == [
        "a:1: not TOML: Expected '=' after a key in a key/value pair",
        "b: good",
    ]
    assert tvix_store("--config", "b", "config", "check") == "b: good"


def test_check_opens_nothing(tvix_store: Program, file: Path) -> None:
    file.write_text("store = '/nowhere/store'\n[path-info.sign]\nkey-file = '/nowhere/key'\n[daemon]\nlisten-address = ['x']")
    assert tvix_store("config", "check") == f"{file}: good"


def test_check_warns_of_passwords_that_everybody_may_read(tvix_store: Program, file: Path) -> None:
    file.write_text("store = 'grpc+https://user:word@host'")
    file.chmod(0o644)
    ended = tvix_store.run("config", "check")
    assert ended.lines == [f"{file}: good"]
    assert ended.error.startswith(f"tvix-store: warning: {file} has mode 644: everybody may read the password")


def test_the_documented_file_is_good(tvix_store: Program, file: Path) -> None:
    (text,) = re.findall("^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    file.write_text(text)
    assert tvix_store("config", "check") == f"{file}: good"

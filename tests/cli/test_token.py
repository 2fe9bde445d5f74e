"""`tvix-store token`."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.cli.program import Program
from tvix_store.access.token_file import TokenFile
from tvix_store.access.tokens import TokenTable, issue
from tvix_store.config.tokens import token_file
from tvix_store.config.user_directories import data_directory
from tvix_store.model.grant import Scope

TOKEN = re.compile(r"tvix_[0-9a-z]{12}_[A-Za-z0-9_-]{43}")


def create(tvix_store: Program, *options: str | Path) -> str:
    return tvix_store("token", "create", "--quiet", *options)


def test_a_token_is_made_listed_and_revoked(tvix_store: Program) -> None:
    assert tvix_store.run("token", "list").code == 12
    token = create(tvix_store, "--scope", "push", "--expires", "90d", "--note", "CI of team A", "--cache", "team-a")
    assert TOKEN.fullmatch(token)
    identity = token.split("_")[1]
    [line] = tvix_store("token", "list").splitlines()
    assert re.fullmatch(rf"{identity}\tpush\tcache team-a\texpires \S+Z\tCI of team A", line)
    assert tvix_store("token", "revoke", identity) == ""
    assert tvix_store("token", "list") == ""
    assert "\trevoked\t" in tvix_store("token", "list", "--all")
    [told] = json.loads(tvix_store("token", "list", "--all", "--json"))
    assert told["id"] == identity
    assert told["revoked"]
    assert token.split("_", 2)[2] not in (tvix_store.store / "tokens.json").read_text()


def test_json_tells_the_token_once(tvix_store: Program) -> None:
    told = json.loads(tvix_store("token", "create", "--scope", "pull", "--json"))
    assert TOKEN.fullmatch(told["token"])
    assert (told["scope"], told["cache"], told["expires"], told["note"]) == ("pull", None, None, "")
    [listed] = json.loads(tvix_store("token", "list", "--json"))
    assert listed == {name: value for name, value in told.items() if name != "token"}


def test_the_first_push_token_says_that_strangers_write_no_longer(tvix_store: Program) -> None:
    assert tvix_store("token", "create", "--scope", "pull")
    said = tvix_store.run("token", "create", "--scope", "push").error
    assert said == "tvix-store: from now on, nobody writes to this store through a daemon without a token\n"
    assert tvix_store.run("token", "create", "--scope", "push").error == ""


def test_a_token_may_come_before_the_store_in_an_empty_directory(tvix_store: Program) -> None:
    """As a service or a volume brings it along. Without the store, the daemon would take the directory for something else."""
    tvix_store.store.mkdir()
    create(tvix_store, "--scope", "push")
    assert tvix_store("list") == ""


def test_all_are_revoked_or_none(tvix_store: Program) -> None:
    first, second = create(tvix_store, "--scope", "pull"), create(tvix_store, "--scope", "pull")
    ended = tvix_store.run("token", "revoke", first, "000000000000")
    assert ended.code == 4
    assert len(tvix_store("token", "list").splitlines()) == 2
    tvix_store("token", "revoke", first, second.split("_")[1], first)
    assert tvix_store("token", "list") == ""


@pytest.mark.parametrize("wrong", ["{}x", "Bearer {}", "{}\n", "X{}"])
def test_an_error_repeats_no_token(tvix_store: Program, wrong: str) -> None:
    token = create(tvix_store, "--scope", "pull")
    ended = tvix_store.run("token", "revoke", wrong.format(token))
    assert ended.code == 3
    assert token[20:40] not in ended.error
    assert ended.error.count("\n") == 1


@pytest.mark.parametrize(
    ("expires", "line"),
    [
        ("90", "neither a span of time"),
        ("0d", "neither a span of time"),
        ("-1d", "neither a span of time"),
        ("1.5d", "neither a span of time"),
        ("2020-01-31", "is over"),
        ("0001-01-01", "is over"),
        ("soon", "neither a span of time"),
    ],
)
def test_other_times_are_refused(tvix_store: Program, expires: str, line: str) -> None:
    ended = tvix_store.run("token", "create", "--scope", "pull", "--expires", expires)
    assert (ended.code, ended.output) == (2, b"")
    assert line in ended.error


def test_an_end_that_is_too_late_spoils_no_file(tvix_store: Program) -> None:
    ended = tvix_store.run("token", "create", "--scope", "pull", "--expires", "999999y")
    assert (ended.code, ended.output) == (3, b"")
    assert "before the year 10000" in ended.error
    create(tvix_store, "--scope", "pull", "--expires", "7000y")
    create(tvix_store, "--scope", "pull", "--expires", "9999-12-31T23:59:59Z")
    assert len(tvix_store("token", "list").splitlines()) == 2


def test_a_token_is_listed_until_its_end(tvix_store: Program) -> None:
    create(tvix_store, "--scope", "pull")
    records = [issue(Scope.PULL, expires=time.time() + seconds)[1] for seconds in (-5, 3600)]
    TokenFile(tvix_store.store / "tokens.json").change(lambda _: TokenTable(records))
    [line] = tvix_store("token", "list").splitlines()
    assert "\texpires " in line
    assert len(tvix_store("token", "list", "--all").splitlines()) == 2
    assert "\texpired at " in tvix_store("token", "list", "--all")


def test_a_file_is_named_for_a_store_in_memory(tvix_store: Program, tmp_path: Path) -> None:
    tvix_store.environment["TVIX_STORE"] = "memory://"
    ended = tvix_store.run("token", "create", "--scope", "pull")
    assert ended.code == 3
    assert "--token-file" in ended.error
    create(tvix_store, "--scope", "pull", "--token-file", tmp_path / "mine.json")
    assert tvix_store("token", "list", "--token-file", tmp_path / "mine.json")


@pytest.mark.parametrize("address", ["grpc+http://localhost:1", "nix+https://cache.example.org", "grpc+unix:///run/store.sock"])
def test_a_store_elsewhere_has_its_tokens_with_the_user(address: str) -> None:
    assert token_file(address) == data_directory() / "tokens.json"
    assert token_file("memory://") is None
    assert token_file("./store") == Path("store/tokens.json")


def test_a_damaged_file_is_one_line(tvix_store: Program) -> None:
    create(tvix_store, "--scope", "pull")
    (tvix_store.store / "tokens.json").write_bytes(b"{")
    for arguments in (["create", "--scope", "pull"], ["list"], ["revoke", "000000000000"]):
        ended = tvix_store.run("token", *arguments)
        assert ended.code == 3
        assert "tokens.json is no file of tokens" in ended.error
        assert ended.error.count("\n") == 1
    ended = tvix_store.run("daemon", "-l", "127.0.0.1:0", "--workers", "1")
    assert ended.code == 3
    assert "tokens.json is no file of tokens" in ended.error


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("sub=a", "a rule lacks issuer and audience and scope"),
        ("issuer=https://ci.example.org audience=cache scope=push", "restricts no claim"),
        ("issuer=http://ci.example.org audience=cache scope=push sub=a", "no URL that begins with https://"),
    ],
)
def test_a_rule_that_is_none_is_one_line(tvix_store: Program, rule: str, line: str) -> None:
    ended = tvix_store.run("daemon", "-l", "127.0.0.1:0", "--oidc-rule", rule)
    assert ended.code == 2
    assert line in ended.error

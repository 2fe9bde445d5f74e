"""Tokens and their records."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.access.tokens import Token, TokenTable, identity_in, is_token, issue, shown_time
from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.grant import Grant, Scope

NOW = 1_800_000_000.0
SCOPES = st.sampled_from([Scope.PULL, Scope.PUSH, Scope.ADMIN])
TIMES = st.integers(0, 253_402_300_799).map(float)
TOKENS = st.builds(
    Token,
    id=st.text("0123456789abcdfghijklmnpqrsvwxyz", min_size=12, max_size=12),
    sha256=st.binary(min_size=32, max_size=32),
    scope=SCOPES,
    cache=st.none() | st.from_regex("[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True),
    note=st.text(st.characters(whitelist_categories=["L", "N"]), max_size=20),
    created=TIMES,
    expires=st.none() | TIMES,
    revoked=st.none() | TIMES,
)
TABLES = st.lists(TOKENS, max_size=5, unique_by=lambda token: token.id).map(TokenTable)


@given(TABLES)
def test_a_table_comes_back_from_json(table: TokenTable) -> None:
    again = TokenTable.decode(json.loads(json.dumps(table.encode())))
    assert again.records == table.records
    assert again.has_pusher == table.has_pusher


@given(TABLES, SCOPES)
def test_a_new_token_grants_its_scope_and_nothing_that_differs_from_it_does(table: TokenTable, scope: Scope) -> None:
    secret, record = issue(scope, cache="team-a")
    table = table.with_token(record)
    assert table.grant(secret, NOW) == Grant(scope, record.id, "team-a")
    for at in range(len(secret)):
        for other in {secret[:at] + secret[at + 1 :], secret[:at] + "_" + secret[at + 1 :], secret[:at]} - {secret}:
            grant = table.grant(other, NOW)
            assert (grant.scope, grant.refusal) == (Scope.NOTHING, "the token is not one of this store"), other


def test_no_two_tokens_are_alike_and_none_holds_its_own_secret() -> None:
    made = [issue(Scope.PULL) for _ in range(100)]
    assert len({secret for secret, _ in made}) == len({record.id for _, record in made}) == 100
    for secret, record in made:
        assert len(secret) == 61
        assert is_token(secret)
        assert secret.split("_", 2)[2] not in json.dumps(TokenTable([record]).encode()) + repr(record)


def test_a_token_ends_at_its_time_and_when_it_is_revoked() -> None:
    secret, record = issue(Scope.PUSH, expires=NOW)
    table = TokenTable([record])
    assert table.grant(secret, NOW - 1).scope is Scope.PUSH
    assert table.grant(secret, NOW).refusal == f"token {record.id} expired at 2027-01-15T08:00:00Z"
    revoked = table.revoked(record.id, NOW - 5)
    assert revoked.grant(secret, NOW - 9).refusal == f"token {record.id} was revoked"
    assert revoked.revoked(record.id, NOW).records[0].revoked == NOW - 5
    with pytest.raises(NotFoundError):
        table.revoked("000000000000", NOW)


def test_the_last_push_token_leaves_the_store_closed_when_it_is_revoked() -> None:
    _, pull = issue(Scope.PULL)
    _, push = issue(Scope.PUSH, expires=time.time() - 1)
    assert not TokenTable([pull]).has_pusher
    assert TokenTable([pull, push]).revoked(push.id, NOW).has_pusher


@pytest.mark.parametrize("note", ["two\nlines", "\x1b[31m", "n" * 201, "\udc80"])
def test_a_note_is_a_short_line(note: str) -> None:
    with pytest.raises(InvalidError, match="a note is one line"):
        issue(Scope.PULL, note=note)


@pytest.mark.parametrize("expires", [float("nan"), float("inf"), -1.0, 253_402_300_800.0, 1e15])
def test_an_end_that_could_not_be_read_back_is_refused(expires: float) -> None:
    with pytest.raises(InvalidError, match="before the year 10000"):
        issue(Scope.PULL, expires=expires)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 64, "ä"])
def test_other_names_are_not_those_of_caches(name: str) -> None:
    with pytest.raises(InvalidError, match="not a name of a cache"):
        issue(Scope.PULL, cache=name)


GOOD = TokenTable([issue(Scope.PUSH)[1]]).encode()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "",
        1,
        {},
        {"version": 1},
        {"version": 2, "tokens": []},
        {"version": 1, "tokens": {}},
        {"version": 1, "tokens": None},
    ],
    ids=repr,
)
def test_another_document_is_no_table(document: Any) -> None:
    with pytest.raises(InvalidError, match="not a list of tokens of version 1"):
        TokenTable.decode(document)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": "short"},
        {"id": "UPPERCASE000"},
        {"id": 123456789012},
        {"sha256": None},
        {"sha256": "ab"},
        {"sha256": "A" * 64},
        {"sha256": 5},
        {"scope": None},
        {"scope": "nothing"},
        {"scope": "PUSH"},
        {"scope": 2},
        {"scope": ["push"]},
        {"cache": ""},
        {"cache": 5},
        {"cache": ["a"]},
        {"note": 5},
        {"expires": "never"},
        {"expires": True},
        {"expires": -1},
        {"expires": float("nan")},
        {"expires": 1e300},
        {"revoked": False},
        {"created": []},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_record_that_is_half_understood_spoils_the_table(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        TokenTable.decode({"version": 1, "tokens": [{**GOOD["tokens"][0], **change}]})


def test_an_id_that_stands_there_twice_spoils_the_table() -> None:
    with pytest.raises(InvalidError, match="an id stands there twice"):
        TokenTable.decode({"version": 1, "tokens": [*GOOD["tokens"], *GOOD["tokens"]]})


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_whatever_a_record_holds_is_read_or_refused(value: Any) -> None:
    for name in ("id", "sha256", "scope", "cache", "note", "created", "expires", "revoked"):
        try:
            [token] = TokenTable.decode({"version": 1, "tokens": [{**GOOD["tokens"][0], name: value}]}).records
        except InvalidError:
            continue
        assert token.scope is Scope.PUSH


def test_an_id_is_found_in_a_token_and_an_error_repeats_no_secret() -> None:
    secret, record = issue(Scope.PULL)
    assert identity_in(secret) == identity_in(record.id) == record.id
    for wrong in (secret[:-1], " " + secret, secret.upper(), "Bearer " + secret, secret.split("_", 2)[2], secret + "a", ""):
        with pytest.raises(InvalidError) as caught:
            identity_in(wrong)
        assert secret[20:50] not in str(caught.value)


def test_times_are_shown_in_utc() -> None:
    assert shown_time(0) == "1970-01-01T00:00:00Z"

"""Which identities a rule lets in, and which rules are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.access.identity_rule import IdentityRule
from tvix_store.errors import InvalidError
from tvix_store.model.grant import Scope

GOOD = "issuer=https://ci.example.org audience=cache scope=push"
MAIN = "repo:team/app:ref:refs/heads/main"


def rule(**claims: str) -> IdentityRule:
    return IdentityRule(issuer="https://ci.example.org", audience="cache", scope=Scope.PUSH, claims=claims)


def test_a_rule_is_read_from_words_and_from_a_table() -> None:
    words = IdentityRule.parse(f"{GOOD} cache=team-a sub=repo:team/*  ref=refs/heads/main")
    table = {"issuer": "https://ci.example.org", "audience": "cache", "scope": "push", "cache": "team-a"}
    assert words == IdentityRule.from_table({**table, "claims": {"sub": "repo:team/*", "ref": "refs/heads/main"}})
    assert (words.scope, words.cache, words.claims) == (Scope.PUSH, "team-a", {"sub": "repo:team/*", "ref": "refs/heads/main"})


def test_a_table_can_restrict_claims_that_are_named_as_settings_are() -> None:
    table = {"issuer": "https://ci.example.org", "audience": "cache", "scope": "push", "claims": {"scope": "deploy", "sub": "a b"}}
    read = IdentityRule.from_table(table)
    assert not read.matches({"aud": "cache", "sub": "a b"})
    assert read.matches({"aud": "cache", "sub": "a b", "scope": "deploy"})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "lacks issuer and audience and scope"),
        ("issuer=https://ci.example.org", "lacks audience and scope"),
        (f"{GOOD} sub", "'sub' in a rule is not name=value"),
        (f"{GOOD} sub=a sub=b", "stands there twice"),
        (GOOD, "restricts no claim"),
        (f"{GOOD} sub=*", "restricts no claim"),
        (f"{GOOD} sub=", "restricts no claim"),
        (f"{GOOD} sub=** ref=?*", "restricts no claim"),
        (f"{GOOD} iss=https://ci.example.org aud=cache", "restricts no claim"),
        (f"{GOOD.replace('push', 'write')} sub=a", "unknown scope 'write'"),
        (f"{GOOD.replace('push', 'nothing')} sub=a", "unknown scope 'nothing'"),
        (f"{GOOD.replace('=cache', '=')} sub=a", "names no audience"),
        (f"{GOOD} cache=A sub=a", "not a name of a cache"),
    ],
)
def test_a_rule_that_would_let_in_too_many_is_refused(text: str, line: str) -> None:
    with pytest.raises(InvalidError, match=line):
        IdentityRule.parse(text)


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "ci.example.org",
        "http://ci.example.org",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://10.0.0.1",
        "https://",
        "https://user@ci.example.org",
        "https://user:password@ci.example.org",
        "https://ci.example.org?a=b",
        "https://ci.example.org#a",
        "https://[::1",
        "ftp://ci.example.org",
        "file:///etc",
    ],
)
def test_an_issuer_is_reached_over_tls_or_on_this_machine(issuer: str) -> None:
    with pytest.raises(InvalidError, match="no URL that begins with https://"):
        IdentityRule(issuer=issuer, audience="cache", scope=Scope.PULL, claims={"sub": "a"})


@pytest.mark.parametrize("issuer", ["https://ci.example.org/a/", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"])
def test_others_are_issuers(issuer: str) -> None:
    assert IdentityRule(issuer=issuer, audience="cache", scope=Scope.PULL, claims={"sub": "a"}).issuer == issuer


@pytest.mark.parametrize("table", [{"claims": 5}, {"claims": ["sub"]}, {"more": "a"}, {"issuer": {}}, {"scope": 2}, {"cache": []}])
def test_a_table_with_anything_else_is_refused(table: dict[str, Any]) -> None:
    good = {"issuer": "https://ci.example.org", "audience": "cache", "scope": "push", "claims": {"sub": "a"}}
    IdentityRule.from_table(good)
    with pytest.raises(InvalidError):
        IdentityRule.from_table({**good, **table})
    with pytest.raises(InvalidError, match="are texts"):
        IdentityRule.from_table({**good, "claims": {"sub": 5}})


@pytest.mark.parametrize(
    ("glob", "value", "matches"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a", "ab", False),
        ("a", "ba", False),
        ("a", "a\n", False),
        ("repo:team/*", "repo:team/app:ref:refs/heads/main", True),
        ("repo:team/*", "repo:team-evil/app", False),
        ("repo:team/*", "x repo:team/app", False),
        ("*:ref:refs/heads/main", "repo:team/app:ref:refs/heads/main", True),
        ("a?c", "abc", True),
        ("[ab]", "b", True),
        ("5", 5, True),
        ("5", 5.0, False),
        ("true", True, True),
        ("1", True, False),
        ("false", False, True),
        ("a", ["b", "a"], True),
        ("a", [["a"]], False),
        ("a", [], False),
        ("a", {"a": "a"}, False),
        ("a", [{"a": "a"}], False),
        ("5", [4, 5], True),
        ("*a*", None, False),
        ("None", None, False),
    ],
)
def test_a_claim_is_matched_by_a_glob(glob: str, value: object, matches: bool) -> None:
    assert rule(claim=glob).matches({"aud": "cache", "claim": value}) is matches


def test_all_claims_must_match() -> None:
    both = rule(sub="repo:team/*", ref="refs/heads/main")
    assert both.matches({"aud": "cache", "sub": MAIN, "ref": "refs/heads/main"})
    assert not both.matches({"aud": "cache", "sub": MAIN, "ref": "refs/heads/other"})
    assert not both.matches({"aud": "cache", "sub": MAIN})


def test_a_claim_that_is_absent_matches_nothing_not_even_all() -> None:
    assert not rule(sub="repo:team/*", ref="*").matches({"aud": "cache", "sub": MAIN})


@pytest.mark.parametrize(
    ("audience", "matches"),
    [
        ("cache", True),
        (["cache"], True),
        (["other", "cache"], True),
        ("caches", False),
        ("Cache", False),
        ([], False),
        ([["cache"]], False),
        ({"cache": 1}, False),
        (None, False),
        (True, False),
    ],
)
def test_the_audience_is_ours(audience: object, matches: bool) -> None:
    assert rule(sub="repo:*").matches({"aud": audience, "sub": MAIN}) is matches


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda e: st.lists(e) | st.dictionaries(st.text(), e)
    )
)
def test_whatever_a_claim_holds_it_matches_only_the_text_that_a_rule_wants(value: object) -> None:
    wanted = "exactly this, which nothing makes up"
    assert not rule(sub=wanted).matches({"aud": "cache", "sub": value})

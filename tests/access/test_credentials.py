"""What is taken for credentials, however it is written."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.access.credentials import LONGEST, shown_secret

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=100)


@given(VISIBLE, st.text(st.characters(blacklist_characters=":", blacklist_categories=["Cs"]), max_size=50))
def test_a_secret_is_found_as_a_bearer_token_and_as_the_password_of_any_user(secret: str, user: str) -> None:
    assert shown_secret(b"Bearer " + secret.encode()) == secret
    assert shown_secret(b"Basic " + b64encode(f"{user}:{secret}".encode())) == secret


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_a_secret_or_none(value: bytes) -> None:
    for whole in (value, b"Bearer " + value, b"Basic " + value, b"Basic " + b64encode(value)):
        assert shown_secret(whole) is None or whole[:2].lower() in {b"be", b"ba"} or whole == value


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b" bEaReR"])
@pytest.mark.parametrize("space", [b" ", b"   "])
def test_schemes_have_no_case_and_spaces_do_not_count(scheme: bytes, space: bytes) -> None:
    assert shown_secret(scheme + space + b"abc ") == "abc"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"abc",
        b"Token abc",
        b"Digest username=a",
        b"Negotiate abc",
        b"Bearer \xff\xfe",
        "Bearer tokén".encode(),
        b"Basic",
        b"Basic ",
        b"Basic not base64!",
        b"Basic " + b64encode(b"no colon"),
        b"Basic " + b64encode(b"user:"),
        b"Basic " + b64encode(b":"),
        b"Basic " + b64encode(b"user:\xff"),
        b"Basic " + b64encode(b"user:secret")[:-1],
        b"Basic dXNlcjpz*WNyZXQ=",
        b"Bearer " + b"a" * LONGEST,
        b"Bearer " + b"a" * (64 << 10),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_anything_else_is_none(value: bytes) -> None:
    assert shown_secret(value) is None


def test_a_password_may_have_colons_and_a_user_any_letters() -> None:
    assert shown_secret(b"Basic " + b64encode("jürgen:a:b".encode())) == "a:b"
    assert shown_secret(b"Basic " + b64encode(b"\xff\xfe:abc")) == "abc"

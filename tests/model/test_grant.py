"""What a grant allows, and the line that somebody hears who may not."""

from __future__ import annotations

import pytest

from tvix_store.errors import DeniedError, InvalidError, UnauthenticatedError
from tvix_store.model.grant import OPEN, Grant, Scope


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("wanted", Scope)
def test_a_scope_includes_those_below_it(scope: Scope, wanted: Scope) -> None:
    grant = Grant(scope, "4wy8b1c0zzk3")
    if scope >= wanted:
        grant.require(wanted)
    else:
        with pytest.raises(DeniedError, match=f"4wy8b1c0zzk3 has the scope {scope.name.lower()}; .* scope {wanted.name.lower()}$"):
            grant.require(wanted)


def test_a_stranger_is_asked_who_it_is() -> None:
    with pytest.raises(UnauthenticatedError, match="this needs a token with the scope push, as a bearer token or as the password"):
        Grant(Scope.PULL).require(Scope.PUSH)


def test_wrong_credentials_are_told_what_is_wrong_with_them() -> None:
    with pytest.raises(UnauthenticatedError, match=r"^token x was revoked; this needs a token with the scope pull$"):
        Grant(Scope.NOTHING, "x", refusal="token x was revoked").require(Scope.PULL)


def test_an_open_store_lets_strangers_push_and_knows_none_of_them() -> None:
    OPEN.require(Scope.PUSH)
    assert OPEN.name == ""


@pytest.mark.parametrize("text", ["", "nothing", "PUSH", " push", "write", "3"])
def test_other_words_are_no_scopes(text: str) -> None:
    with pytest.raises(InvalidError, match=r"known: pull, push, admin"):
        Scope.parse(text)

"""Addresses are taken apart in one place."""

from __future__ import annotations

import pytest

from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, without_secrets


def test_a_path_is_the_address_of_a_local_store() -> None:
    assert Address.parse("./a?b#c") == Address("./a?b#c", "local", "", "./a?b#c", {})
    with pytest.raises(InvalidError, match="a path has a slash"):
        Address.parse("store")


def test_a_url_has_its_parts() -> None:
    address = Address.parse("grpc+http://[::1]:8000/a%20b?x=1&y=")
    assert (address.scheme, address.host, address.path) == ("grpc+http", "[::1]:8000", "/a b")
    assert (address.host_name, address.port) == ("::1", 8000)
    assert address.parameters == {"x": "1", "y": ""}
    assert address.location == "grpc+http://[::1]:8000/a%20b"
    assert Address.parse("local:/x").path == "/x"
    assert Address.parse("memory:").host_name is None


def test_a_plus_is_a_plus() -> None:
    assert Address.parse("a:/x+y?ca=/etc/c+d.pem&e=%2B%20").parameters == {"ca": "/etc/c+d.pem", "e": "+ "}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a://h?x", "not the address of a store: 'a://h'"),
        ("a://h:port", "not the address of a store"),
        ("a://[h", "not the address of a store"),
        ("a://h?x=1&%78=2", "a:.*twice"),
        ("a://h#", "%23"),
    ],
)
def test_what_is_no_url_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidError, match=complaint):
        Address.parse(text)


def test_a_parameter_is_read_by_the_function_of_its_name() -> None:
    def refuse(_: str) -> object:
        raise InvalidError("never")

    address = Address.parse("a://me:secret@h?n=7")
    assert address.read_parameters({"n": int}) == {"n": 7}
    for known, message in (
        ({}, "a://h: unknown parameter 'n' (known: none)"),
        ({"n": {"8": 8}.__getitem__}, "a://h: '7' is not a value for n"),
        ({"n": refuse}, "a://h: n: never"),
    ):
        with pytest.raises(InvalidError) as caught:
            address.read_parameters(known)
        assert str(caught.value) == message


def test_secrets_are_not_shown_however_broken_an_address_is() -> None:
    for text in ("a://me:secret@[h/x?secret#secret", "a:me:secret@h/x", "a://secret@h/x#secret"):
        assert "secret" not in without_secrets(text)

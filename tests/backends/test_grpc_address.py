"""Addresses of servers are read, and what is not one is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.errors import InvalidError
from tvix_store.protocol.dialects import SEED, SNIX


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("grpc+http://localhost:8000", "localhost:8000"),
        ("grpc+http://[::1]:8000/", "[::1]:8000"),
        ("grpc+http://store.example", "store.example:80"),
        ("grpc+https://store.example", "store.example:443"),
        ("grpc+unix:///run/tvix%20store.sock", "unix:/run/tvix store.sock"),
    ],
)
def test_a_server_is_found_where_the_address_says(text: str, target: str) -> None:
    address = ServerAddress.parse(text)
    assert address.target == target
    assert address.tls == text.startswith("grpc+https")
    assert (address.dialect, address.wait_connect, address.ca) == (None, False, None)


def test_parameters_say_how_to_speak() -> None:
    assert ServerAddress.parse("grpc+https://localhost:1?tls-ca-cert-path=/etc/ca.pem").ca == Path("/etc/ca.pem")
    address = ServerAddress.parse("grpc+https://localhost:1?dialect=snix&wait-connect=1&ca=/etc/ca.pem")
    assert (address.dialect, address.wait_connect, address.ca) == (SNIX, True, Path("/etc/ca.pem"))
    assert ServerAddress.parse("grpc+unix:///sock?dialect=seed&wait-connect=0").dialect == SEED


def test_a_server_of_ours_has_its_methods_below_a_path_too() -> None:
    assert ServerAddress.parse("grpc+http://localhost:1/team a/").prefix == "/team%20a"
    assert ServerAddress.parse("grpc+unix:///sock").prefix == ""


def test_a_message_names_the_server_without_parameters() -> None:
    assert ServerAddress.parse("grpc+http://localhost:1?dialect=tvix").name == "grpc+http://localhost:1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://localhost:1", "unknown scheme"),
        ("grpc+http://", "host:port"),
        ("grpc+http://localhost:one", "not the address"),
        ("grpc+http://localhost:99999", "not the address"),
        ("grpc+http://localhost:1#part", "#"),
        ("grpc+unix://run/sock", "three slashes"),
        ("grpc+unix://", "three slashes"),
        ("grpc+http://localhost:1?colour=red", "unknown parameter 'colour' (known: dialect, wait-connect)"),
        ("grpc+http://localhost:1?ca=/etc/ca.pem", "unknown parameter 'ca'"),
        ("grpc+https://localhost:1?tls-client-cert-path=/x", "tls-client-cert-path: we show no certificate of a client"),
        ("grpc+http://localhost:1?dialect=klingon", "unknown dialect 'klingon' (known: seed, tvix, snix)"),
        ("grpc+http://localhost:1?wait-connect=yes", "wait-connect: it is 0 or 1"),
        ("grpc+http://localhost:1?dialect=snix&dialect=tvix", "twice"),
        ("grpc+http://localhost:1?dialect", "not the address"),
    ],
)
def test_what_is_no_address_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(InvalidError) as caught:
        ServerAddress.parse(text)
    assert complaint in str(caught.value)

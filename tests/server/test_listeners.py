"""Addresses to listen on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.server.listeners import Address, SystemdSockets, TcpAddress, UnixAddress, listening, name, parse


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8000", TcpAddress("localhost", 8000)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
        ("/run/store.sock", UnixAddress(Path("/run/store.sock"))),
        ("unix:/run/store.sock", UnixAddress(Path("/run/store.sock"))),
        ("unix:///run/store.sock", UnixAddress(Path("/run/store.sock"))),
        ("./store.sock", UnixAddress(Path("store.sock"))),
        ("../store.sock", UnixAddress(Path("../store.sock"))),
        ("unix:store.sock", UnixAddress(Path("store.sock"))),
        ("sd-listen", SystemdSockets()),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":8000", "localhost:", "localhost:http", "localhost:65536", "::1:8000", "[]:1", "a/b", "-1:-1", "unix:"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="expected host:port"):
        parse(text)


def test_localhost_is_both_loopback_addresses_with_one_port() -> None:
    with listening(["localhost:0"]) as sockets:
        ports = {each.getsockname()[1] for each in sockets}
        assert [name(each).rpartition(":")[0] for each in sockets] in (["127.0.0.1", "[::1]"], ["127.0.0.1"])
        assert len(ports) == 1
        assert 0 not in ports


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_can_reach_must_be_allowed(address: str) -> None:
    with pytest.raises(InvalidError, match="can be reached from other machines"), listening([address]):
        pass
    with listening([address], allow_remote=True) as sockets:
        assert sockets


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = name(taken)
        complaint = f"port {taken.getsockname()[1]}: Address already in use"
        with pytest.raises(UnavailableError, match=complaint), listening([address]):
            pass


def test_nothing_stays_open_when_one_of_several_fails(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(InvalidError), listening([str(path), "0.0.0.0:0"]):
        pass
    assert not path.exists()


def test_the_file_of_a_unix_socket_is_there_only_while_somebody_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening([f"unix:{path}"]) as (listener,):
        assert name(listener) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listening([str(path)]) as (listener,), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        listener.accept()[0].close()


def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening([str(path)]):
        with pytest.raises(UnavailableError, match="another process listens there"), listening([str(path)]):
            pass
        assert path.is_socket()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(InvalidError, match="not a socket"), listening([str(path)]):
        pass
    assert path.read_text() == "precious"


def test_sockets_of_systemd_are_refused_where_it_passed_none() -> None:
    with pytest.raises(InvalidError, match="systemd passed no sockets"), listening(["sd-listen"]):
        pass

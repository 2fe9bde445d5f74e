"""ServerAddress: the URL of a server, taken apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote

from tvix_store.client_environment.credentials import find_credentials
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, read_switch, without_secrets
from tvix_store.protocol.connect import PREFIX
from tvix_store.protocol.dialects import DIALECTS, Dialect

_PORTS = {"grpc+http": 80, "grpc+https": 443, "connect+http": 80, "connect+https": 443}
_KNOWN = "grpc+http://host:port, grpc+https://host:port, grpc+unix:///path, connect+http://host/path or connect+https://host/path"
MAX_BODY = 1 << 20
"""Default bytes of a request's body over Connect: as much as nginx takes, where nobody says otherwise."""
LEAST_BODY = 768 << 10
"""Bytes of the smallest bound of a body. 16,384 digests with sizes take 640 KiB."""
_DIALECTS = {dialect.name: dialect for dialect in DIALECTS}


def _read_dialect(name: str) -> Dialect:
    if name not in _DIALECTS:
        raise InvalidError(f"unknown dialect {name!r} (known: {', '.join(_DIALECTS)})")
    return _DIALECTS[name]


def _read_max_body(text: str) -> int:
    size = int(text)
    if size < LEAST_BODY:
        raise InvalidError(f"it is at least {LEAST_BODY} bytes, not {text}")
    return size


def _refuse_client_certificate(_: str) -> None:
    raise InvalidError("we show no certificate of a client, but a token: any:TOKEN@ before the host")


_OF_SNIX: dict[str, Callable[[str], object]] = {
    "tls-ca-cert-path": Path,
    "tls-client-cert-path": _refuse_client_certificate,
    "tls-client-key-path": _refuse_client_certificate,
}
"""Parameters as snix has them."""
_PARAMETERS: dict[str, Callable[[str], object]] = {"dialect": _read_dialect, "wait-connect": read_switch}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is and how to speak to it.

    name: The URL without its parameters, for messages.
    target: The server as gRPC names it.
    tls: Whether to speak TLS.
    ca: PEM file of the authorities to trust. None means those of the environment, or the system's.
    dialect: The dialect to speak. None means to find out.
    wait_connect: Whether to wait for the server when the store is opened.
    is_connect: Whether to speak Connect over plain HTTP, and not gRPC.
    prefix: The path below which the server has its methods. It is percent-encoded.
    authorization: The header field of a user and a password, or a token, that the URL or a netrc file has.
    max_body: Most bytes of a request's body, over Connect.
    """

    name: str
    target: str
    tls: bool = False
    ca: Path | None = None
    dialect: Dialect | None = None
    wait_connect: bool = False
    is_connect: bool = False
    prefix: str = ""
    authorization: str | None = field(default=None, repr=False)
    max_body: int = MAX_BODY

    @property
    def url(self) -> str:
        """The URL of the server's methods, over Connect."""
        return f"{'https' if self.tls else 'http'}://{self.target}{self.prefix}{PREFIX}"

    @property
    def is_socket(self) -> bool:
        """Whether the server is at a Unix socket."""
        return self.target.startswith("unix:")

    @property
    def path(self) -> str:
        """Of the socket."""
        return self.target.removeprefix("unix:")

    @property
    def host(self) -> str:
        return self.target.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])

    @property
    def authority(self) -> str:
        """The server's name in requests. The path of a socket is no authority; snix refuses it with a PROTOCOL_ERROR."""
        return "localhost" if self.is_socket else self.target

    def with_netrc(self) -> ServerAddress:
        """The address with the credentials of a netrc file, where it has none and is no socket.

        Raises:
            InvalidError: the file cannot be read.
        """
        found = None if self.authorization or self.is_socket else find_credentials(self.host)
        return self if found is None else replace(self, authorization=found.header)

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read `grpc+http://user:password@host:port/path` or `grpc+https://…`, the same with `connect+…`, or `grpc+unix:///path`
        (also with one slash). User, password and path may be left out. Only a server of ours has its methods below a path. With
        parameters: `?dialect=…&wait-connect=1&ca=…&max_body=…`.

        Raises:
            InvalidError: `text` is none of these, or has a parameter that is unknown, given twice, or has an unknown value.
        """
        address = Address.parse_url(text, "a server", _KNOWN)
        shown = without_secrets(text)
        is_connect = address.scheme.startswith("connect+")
        if address.scheme == "grpc+unix":
            if address.host or not address.path.startswith("/"):
                raise InvalidError(
                    f"{shown}: the path of a socket has three slashes before it, as in grpc+unix:///run/tvix-store.sock"
                )
            target = f"unix:{address.path}"
        elif address.scheme in _PORTS:
            host = address.host_name
            if not host:
                raise InvalidError(f"{shown}: a server is written as {address.scheme}://host:port/path")
            target = f"{f'[{host}]' if ':' in host else host}:{address.port or _PORTS[address.scheme]}"
        else:
            raise InvalidError(f"{shown}: unknown scheme {address.scheme!r} (known: grpc+unix, {', '.join(_PORTS)})")
        tls = address.scheme.endswith("+https")
        of_connect = {"max_body": _read_max_body} if is_connect else {}
        of_tls = {"ca": Path, **_OF_SNIX} if tls else {}
        given = address.read_parameters(_PARAMETERS | of_tls | of_connect)
        return cls(
            name=shown,
            target=target,
            tls=tls,
            ca=given.get("ca", given.get("tls-ca-cert-path")),
            dialect=given.get("dialect"),
            wait_connect=given.get("wait-connect", False),
            is_connect=is_connect,
            prefix=quote(address.path.rstrip("/")) if address.scheme in _PORTS else "",
            authorization=_authorization(address.host),
            max_body=given.get("max_body", MAX_BODY),
        )


def _authorization(host: str) -> str | None:
    """The header field for the user and the password before a host. Source: RFC 7617."""
    user, at, _ = host.rpartition("@")
    return f"Basic {b64encode(unquote(user).encode()).decode()}" if at else None

"""ServerAddress: the URL of a server, taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, read_switch, without_secrets
from tvix_store.protocol.dialects import DIALECTS, Dialect

_PORTS = {"grpc+http": 80, "grpc+https": 443}
_DIALECTS = {dialect.name: dialect for dialect in DIALECTS}


def _read_dialect(name: str) -> Dialect:
    if name not in _DIALECTS:
        raise InvalidError(f"unknown dialect {name!r} (known: {', '.join(_DIALECTS)})")
    return _DIALECTS[name]


_PARAMETERS: dict[str, Callable[[str], object]] = {"dialect": _read_dialect, "wait-connect": read_switch}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is and how to speak to it.

    name: The URL without its parameters, for messages.
    target: The server as gRPC names it.
    tls: Whether to speak TLS.
    ca: PEM file of the authorities to trust. None means those of $GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, or the system's.
    dialect: The dialect to speak. None means to find out.
    wait_connect: Whether to wait for the server when the store is opened.
    """

    name: str
    target: str
    tls: bool = False
    ca: Path | None = None
    dialect: Dialect | None = None
    wait_connect: bool = False

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

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read `grpc+http://host:port`, `grpc+https://host:port` or `grpc+unix:///path` (also with one slash), with parameters:
        `?dialect=…&wait-connect=1&ca=…`.

        Raises:
            InvalidError: `text` is none of these, or has a parameter that is unknown, given twice, or has an unknown value.
        """
        address = Address.parse_url(text, "a server", "grpc+http://host:port, grpc+https://host:port or grpc+unix:///path")
        shown = without_secrets(text)
        if address.scheme == "grpc+unix":
            if address.host or not address.path.startswith("/"):
                raise InvalidError(
                    f"{shown}: the path of a socket has three slashes before it, as in grpc+unix:///run/tvix-store.sock"
                )
            target = f"unix:{address.path}"
        elif address.scheme in _PORTS:
            host = address.host_name
            if not host or address.path not in {"", "/"} or "@" in address.host:
                raise InvalidError(f"{shown}: a server is written as {address.scheme}://host:port")
            target = f"{f'[{host}]' if ':' in host else host}:{address.port or _PORTS[address.scheme]}"
        else:
            raise InvalidError(f"{shown}: unknown scheme {address.scheme!r} (known: grpc+http, grpc+https, grpc+unix)")
        tls = address.scheme == "grpc+https"
        given = address.read_parameters(_PARAMETERS | ({"ca": Path} if tls else {}))
        return cls(
            name=address.location,
            target=target,
            tls=tls,
            ca=given.get("ca"),
            dialect=given.get("dialect"),
            wait_connect=given.get("wait-connect", False),
        )

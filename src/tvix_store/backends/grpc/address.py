"""ServerAddress: the URL of a server, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tvix_store.errors import InvalidError
from tvix_store.protocol.dialects import DIALECTS, Dialect

_PORTS = {"grpc+http": 80, "grpc+https": 443}
_DIALECTS = {dialect.name: dialect for dialect in DIALECTS}
_USER = re.compile("//[^/?#]*@")
"""The part before a host: names and passwords are never shown."""
_SWITCH = {"0": False, "1": True}


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
        shown = _USER.sub("//", text)
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
            pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
        except ValueError as error:
            why = "" if "@" in text else f" ({error})"  # the error's words may hold what stands before the host
            raise InvalidError(f"not the address of a server: {shown!r}{why}") from None
        if url.scheme == "grpc+unix":
            if url.netloc or not url.path.startswith("/"):
                raise InvalidError(
                    f"{shown}: the path of a socket has three slashes before it, as in grpc+unix:///run/tvix-store.sock"
                )
            target = f"unix:{unquote(url.path)}"
        elif url.scheme in _PORTS:
            if not host or url.path not in {"", "/"} or "@" in url.netloc:
                raise InvalidError(f"{shown}: a server is written as {url.scheme}://host:port")
            target = f"{f'[{host}]' if ':' in host else host}:{port or _PORTS[url.scheme]}"
        else:
            raise InvalidError(f"{shown}: unknown scheme {url.scheme!r} (known: grpc+http, grpc+https, grpc+unix)")
        if url.fragment:
            raise InvalidError(f"{shown}: an address ends before the #; write it as %23 in a path")
        parameters = dict(pairs)
        if len(parameters) != len(pairs):
            raise InvalidError(f"{shown}: a parameter stands there twice")
        tls = url.scheme == "grpc+https"
        known = ["dialect", "wait-connect", *(["ca"] if tls else [])]
        for parameter in parameters:
            if parameter not in known:
                raise InvalidError(f"{shown}: unknown parameter {parameter!r} (known: {', '.join(known)})")
        ca = parameters.get("ca")
        dialect = parameters.get("dialect")
        wait_connect = parameters.get("wait-connect", "0")
        if dialect is not None and dialect not in _DIALECTS:
            raise InvalidError(f"{shown}: unknown dialect {dialect!r} (known: {', '.join(_DIALECTS)})")
        if wait_connect not in _SWITCH:
            raise InvalidError(f"{shown}: wait-connect is 0 or 1, not {wait_connect!r}")
        return cls(
            name=text.partition("?")[0],
            target=target,
            tls=tls,
            ca=None if ca is None else Path(ca),
            dialect=None if dialect is None else _DIALECTS[dialect],
            wait_connect=_SWITCH[wait_connect],
        )

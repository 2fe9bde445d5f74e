"""Address: the URL of a store, a server or a cache, taken apart. All addresses are read here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tvix_store.errors import InvalidError

_SCHEME = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)
"""What a URL begins with. A path that does is written with ./ before it."""


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme://host/path?name=value`, or `scheme:/path`. `path` is decoded; `parameters` are those of the query, decoded."""

    text: str
    scheme: str
    host: str
    path: str
    parameters: Mapping[str, str]

    @property
    def location(self) -> str:
        """The address without its parameters."""
        return self.text.partition("?")[0]

    @property
    def host_name(self) -> str | None:
        """The host without a port, a user, and brackets around an IPv6 address. None if the address has no host."""
        return urlsplit(f"//{self.host}").hostname

    @property
    def port(self) -> int | None:
        return urlsplit(f"//{self.host}").port

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URL, or the path of a local store: a text that does not begin as a URL does, and has a slash in it.

        Raises:
            InvalidError: `text` is neither, or as `parse_url`.
        """
        if _SCHEME.match(text):
            return cls.parse_url(text, "a store", "scheme://host/path?name=value&…")
        if "/" not in text:
            path = f"./{text or 'store'}"
            raise InvalidError(f"not the address of a store: {text!r} (a path has a slash, as in {path}; a URL has a scheme)")
        return cls(text, "local", "", text, {})

    @classmethod
    def parse_url(cls, text: str, what: str, expected: str) -> Address:
        """Read a URL. A `+` in a parameter is a plus, as in Nix. `what` and `expected` are for messages.

        Raises:
            InvalidError: `text` is malformed, or has a parameter without a value, or one twice.
        """
        try:
            url = urlsplit(text)
            _ = url.port  # raises ValueError if it is none
            pairs = [(unquote(name), unquote(value)) for name, value in _pairs(url.query)]
        except ValueError:
            # Without the error's own text, which may hold what stands before the host.
            raise not_an_address(text, what, expected) from None
        if not url.scheme:
            raise not_an_address(text, what, expected)
        parameters = dict(pairs)
        if len(parameters) != len(pairs):
            raise InvalidError(f"{without_secrets(text)}: a parameter stands there twice")
        if "#" in text:
            raise InvalidError(f"{without_secrets(text)}: an address ends before the #; write it as %23 in a path")
        return cls(text, url.scheme, url.netloc, unquote(url.path), parameters)

    def read_parameters(self, known: Mapping[str, Callable[[str], object]]) -> dict[str, Any]:
        """The given parameters, each read by the function of its name. That function raises ValueError for a value that it refuses,
        or InvalidError to say more.

        Raises:
            InvalidError: a parameter is not among the `known`, or its value is refused.
        """
        values: dict[str, Any] = {}
        shown = without_secrets(self.text)
        for name, value in self.parameters.items():
            read = known.get(name)
            if read is None:
                raise InvalidError(f"{shown}: unknown parameter {name!r} (known: {', '.join(known) or 'none'})")
            try:
                values[name] = read(value)
            except (ValueError, KeyError):
                raise InvalidError(f"{shown}: {value!r} is not a value for {name}") from None
            except InvalidError as error:
                raise InvalidError(f"{shown}: {name}: {error}") from None
        return values


def is_address(text: str) -> bool:
    """Whether a text is meant to be an address, and not a name: it begins as a URL does, or has a slash."""
    return _SCHEME.match(text) is not None or "/" in text


def read_switch(text: str) -> bool:
    """The value of a parameter that is 0 or 1.

    Raises:
        InvalidError: it is neither.
    """
    if text not in {"0", "1"}:
        raise InvalidError(f"it is 0 or 1, not {text!r}")
    return text == "1"


def not_an_address(text: str, what: str, expected: str) -> InvalidError:
    return InvalidError(f"not the address of {what}: {without_secrets(text)!r} (expected {expected})")


def without_secrets(address: str) -> str:
    """An address for messages, however broken it is: without what stands before an `@` of its host, and without parameters."""
    if not _SCHEME.match(address):
        return address
    scheme, colon, rest = address.partition("?")[0].partition("#")[0].partition(":")
    slashes = "//" if rest.startswith("//") else ""
    host, slash, path = rest.removeprefix(slashes).partition("/")
    return f"{scheme}{colon}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = []
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(name)
        pairs.append((name, value))
    return pairs

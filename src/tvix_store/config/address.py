"""Address: the URL of a store, taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tvix_store.errors import InvalidError

_SCHEME = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)
"""What a URL begins with. A path that does is written with ./ before it."""


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme://host/path?name=value`, or `scheme:/path`. `path` is decoded; `parameters` are those of the query."""

    text: str
    scheme: str
    host: str
    path: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URL, or the path of a local store: a text that does not begin as a URL does, and has a slash in it.

        Raises:
            InvalidError: `text` is neither, or has a parameter twice.
        """
        if not _SCHEME.match(text):
            if "/" not in text:
                raise InvalidError(f"not the address of a store: {text!r} (a path needs a slash, as in ./store; a URL a scheme:)")
            return cls(text, "local", "", text, {})
        try:
            url = urlsplit(text)
            pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query))
        except ValueError:
            # Without the error's own text, which may hold what stands before the host.
            shown = without_secrets(text)
            raise InvalidError(f"not the address of a store: {shown!r} (expected scheme://host/path?name=value&…)") from None
        parameters = dict(pairs)
        if len(parameters) != len(pairs):
            raise InvalidError(f"{without_secrets(text)}: a parameter stands there twice")
        if url.fragment:
            raise InvalidError(f"{without_secrets(text)}: an address ends before the #; write it as %23 in a path")
        return cls(text, url.scheme, url.netloc, unquote(url.path), parameters)

    def read_parameters(self, known: Mapping[str, Callable[[str], object]]) -> dict[str, Any]:
        """The given parameters, each read by the function of its name. That function raises ValueError for a value that it refuses.

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
        return values


def without_secrets(address: str) -> str:
    """An address for messages, however broken it is: without what stands before an `@` of its host, and without parameters."""
    if not _SCHEME.match(address):
        return address
    scheme, colon, rest = address.partition("?")[0].partition("#")[0].partition(":")
    slashes = "//" if rest.startswith("//") else ""
    host, slash, path = rest.removeprefix(slashes).partition("/")
    return f"{scheme}{colon}{slashes}{host.rpartition('@')[2]}{slash}{path}"

"""OwnUrl: the URL under which a client knows a cache, for lines that people copy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_HOST = re.compile(r"(?:[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OwnUrl:
    """scheme: `http` or `https`. host: Name or IP address, with a port where it is not the usual one. path: "", or `/NAME`."""

    scheme: str
    host: str
    path: str = ""

    @classmethod
    def of(cls, scope: Mapping[str, Any], host: bytes) -> Self:
        """The URL from a request's scope and its field `Host`. A malformed `Host` gives way to the address of the listener."""
        text = host.decode("latin-1")
        if not _HOST.fullmatch(text):
            name, port = scope.get("server") or ("localhost", None)
            name = f"[{name}]" if ":" in name else name
            text = f"{name}:{port}" if port is not None else "localhost"
        return cls(scope.get("scheme", "http"), text, scope.get("root_path", ""))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def machine(self) -> str:
        """The host as netrc files name it, without the port."""
        return re.sub(r":[0-9]+$", "", self.host)

"""Names of named caches: the first part of a URL's path, and the name of a directory."""

from __future__ import annotations

import re

from tvix_store.errors import InvalidError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = frozenset(
    (
        "build-trace-v2",
        "debuginfo",
        "healthz",
        "log",
        "metrics",
        "nar",
        "push",
        "readyz",
        "realisations",
        "rpc",
        "serve",
    )
)
"""First parts of paths that mean something else."""


def check_cache_name(name: str) -> None:
    """Raise InvalidError where `name` cannot be that of a named cache."""
    if not _NAME.fullmatch(name):
        raise InvalidError(f"not a name of a cache: {name!r} (expected letters a-z, digits and inner dashes, at most 63)")
    if name in RESERVED:
        raise InvalidError(f"a cache cannot be called {name}: that is the first part of other URLs")

"""Tokens in a file, as `tvix-store token` makes them, without the time that a process takes."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path

from tvix_store.access.token_file import TokenFile
from tvix_store.access.tokens import identity_in, issue
from tvix_store.model.grant import Scope


class Tokens:
    """The tokens in a file."""

    def __init__(self, path: Path) -> None:
        self._file = TokenFile(path)

    def make(self, scope: Scope, *, expires: float | None = None) -> str:
        secret, record = issue(scope, expires=expires)
        self._file.change(lambda table: table.with_token(record))
        return secret

    def revoke(self, secret: str) -> None:
        self._file.change(lambda table: table.revoked(identity_in(secret), time.time()))


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def basic(secret: str, user: str = "any") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{secret}".encode()).decode()}

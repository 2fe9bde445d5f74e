"""Tokens: secrets that let whoever has them use the store.

A token is `tvix_<id>_<secret>`. The id, 12 characters, is public. The secret, 43 characters, stands for 32 random bytes. The store
keeps the SHA-256 of the secret alone. Nobody can guess 32 random bytes, so a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model import nixbase32
from tvix_store.model.cache_name import check_cache_name
from tvix_store.model.grant import Grant, Scope

_TOKEN = re.compile(r"tvix_([0-9a-z]{12})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-z]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_NOTE = 200
"""Characters of the longest note."""
_LATEST = 253_402_300_800.0
"""End of the year 9999, in seconds since 1970: the end of the times that a token may have."""
_FIELDS = frozenset(("id", "sha256", "scope", "cache", "note", "created", "expires", "revoked"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A record of a token, without its secret.

    id: Public name of the token.
    sha256: Hash of the secret's characters, 32 bytes.
    scope: What it grants.
    cache: The only named cache that it is for; None for all.
    note: Words of whoever made it.
    created, expires, revoked: Times in seconds since 1970; None for never.
    """

    id: str
    sha256: bytes
    scope: Scope
    cache: str | None = None
    note: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None

    def refusal(self, now: float) -> str | None:
        """Why it grants nothing at a time; None where it is in force."""
        if self.revoked is not None:
            return f"token {self.id} was revoked"
        if self.expires is not None and self.expires <= now:
            return f"token {self.id} expired at {shown_time(self.expires)}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Everything but the hash; times as in `shown_time`."""
        times = {"created": self.created, "expires": self.expires, "revoked": self.revoked}
        return {
            "id": self.id,
            "scope": self.scope.name.lower(),
            "cache": self.cache,
            "note": self.note,
            **{name: None if when is None else shown_time(when) for name, when in times.items()},
        }


def issue(scope: Scope, *, cache: str | None = None, note: str = "", expires: float | None = None) -> tuple[str, Token]:
    """A new token, and its record.

    Raises:
        InvalidError: the note is too long, the end is too late, or the name of the cache is none.
    """
    if expires is not None and not 0 <= expires < _LATEST:
        raise InvalidError("a token ends before the year 10000; one that has no end never expires")
    if len(note) > LONGEST_NOTE or not note.isprintable():
        raise InvalidError(f"a note is one line of at most {LONGEST_NOTE} characters")
    if cache is not None:
        check_cache_name(cache)
    identity = nixbase32.encode(secrets.token_bytes(8))[:12]
    secret = secrets.token_urlsafe(32)
    record = Token(
        id=identity, sha256=_hash(secret), scope=scope, cache=cache, note=note, created=float(int(time.time())), expires=expires
    )
    return f"tvix_{identity}_{secret}", record


class TokenTable:
    """Some records of tokens, and the grants of those in force."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens: Mapping[str, Token] = MappingProxyType({token.id: token for token in tokens})
        self._grants = {token.id: Grant(token.scope, token.id, token.cache) for token in self._tokens.values()}
        self.has_pusher = any(token.scope >= Scope.PUSH for token in self._tokens.values())
        """Whether one was ever made that may push. Revoking the last one does not let strangers push again."""

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def records(self) -> list[Token]:
        """All of them, the oldest first."""
        return sorted(self._tokens.values(), key=lambda token: (token.created, token.id))

    def with_token(self, token: Token) -> TokenTable:
        """The table with one more."""
        return TokenTable((*self._tokens.values(), token))

    def revoked(self, identity: str, when: float) -> TokenTable:
        """The table with a token revoked at a time. One that was revoked before keeps its time.

        Raises:
            NotFoundError: there is no such token.
        """
        token = self._tokens.get(identity)
        if token is None:
            raise NotFoundError("token", identity)
        if token.revoked is None:
            token = replace(token, revoked=float(int(when)))
        return TokenTable({**self._tokens, identity: token}.values())

    def grant(self, text: str, now: float) -> Grant:
        """What a client may do that shows `text`. The comparison takes the same time for every wrong secret."""
        parts = _TOKEN.fullmatch(text)
        token = self._tokens.get(parts[1]) if parts is not None else None
        if parts is None or token is None or not hmac.compare_digest(_hash(parts[2]), token.sha256):
            return Grant(Scope.NOTHING, refusal="the token is not one of this store")
        refusal = token.refusal(now)
        if refusal is not None:
            return Grant(Scope.NOTHING, token.id, refusal=refusal)
        return self._grants[token.id]

    def encode(self) -> dict[str, Any]:
        """The table as JSON."""
        return {"version": 1, "tokens": [_encode(token) for token in self.records]}

    @classmethod
    def decode(cls, document: Any) -> TokenTable:
        """The table that `encode` has made JSON of.

        Raises:
            InvalidError: it is none.
        """
        if not isinstance(document, dict) or document.get("version") != 1 or not isinstance(document.get("tokens"), list):
            raise InvalidError("not a list of tokens of version 1")
        tokens = [_decode(fields) for fields in document["tokens"]]
        table = cls(tokens)
        if len(table) < len(tokens):  # one of the two may be revoked, and nobody knows which counts
            raise InvalidError("an id stands there twice")
        return table


def identity_in(text: str) -> str:
    """The id in `text`, which is an id or a whole token.

    Raises:
        InvalidError: `text` is neither. The error does not repeat it, since it may hold a secret.
    """
    parts = _TOKEN.fullmatch(text)
    identity = parts[1] if parts is not None else text
    if not _ID.fullmatch(identity):
        raise InvalidError(
            "not the id of a token (12 letters and digits, as `tvix-store token list` shows them), nor a whole token"
        )
    return identity


def is_token(text: str) -> bool:
    """Whether `text` begins as our tokens do."""
    return text.startswith("tvix_")


def shown_time(when: float) -> str:
    """A time for people and JSON, as in `2026-11-27T12:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _encode(token: Token) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": token.id,
        "sha256": token.sha256.hex(),
        "scope": token.scope.name.lower(),
        "cache": token.cache,
        "note": token.note,
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
    }
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _decode(fields: Any) -> Token:
    """Every doubt is an error. A record that is half understood could let somebody in."""
    if not isinstance(fields, dict) or not fields.keys() <= _FIELDS:
        raise InvalidError(f"a token is an object of {', '.join(sorted(_FIELDS))}")
    identity, sha256, scope = (fields.get(name) for name in ("id", "sha256", "scope"))
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise InvalidError(f"not the id of a token: {str(identity)[:40]!r}")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or not isinstance(scope, str):
        raise InvalidError(f"token {identity} lacks a sha256 or a scope")
    cache, note = fields.get("cache"), fields.get("note", "")
    if cache is not None:
        if not isinstance(cache, str):
            raise InvalidError(f"the cache of token {identity} is no text")
        check_cache_name(cache)
    if not isinstance(note, str):
        raise InvalidError(f"the note of token {identity} is no text")
    times = {name: fields.get(name) for name in ("created", "expires", "revoked")}
    for name, when in times.items():
        if when is not None and (isinstance(when, bool) or not isinstance(when, int | float) or not 0 <= when < _LATEST):
            raise InvalidError(f"{name} of token {identity} is no time")
    return Token(
        id=identity,
        sha256=bytes.fromhex(sha256),
        scope=Scope.parse(scope),
        cache=cache,
        note=note,
        created=times["created"] or 0.0,
        expires=times["expires"],
        revoked=times["revoked"],
    )

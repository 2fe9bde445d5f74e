"""IdentityRule: which identities of an OIDC issuer may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tvix_store.errors import InvalidError
from tvix_store.model.cache_name import check_cache_name
from tvix_store.model.grant import Scope

_SETTINGS = ("issuer", "audience", "scope", "cache")
_OF_ALL = frozenset(("iss", "aud", "exp", "nbf", "iat", "jti"))
"""Claims that tell nothing of whose a token is. Source: RFC 7519, section 4.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRule:
    """A rule: tokens of `issuer` for `audience` whose claims all match grant `scope`.

    issuer: URL of the issuer, as its tokens have it in `iss`.
    audience: What the tokens must be made for, `aud`.
    claims: Name of a claim → glob that its value must match. `*` matches slashes too.
    cache: The only named cache that it is for; None for all.
    """

    issuer: str
    audience: str
    scope: Scope
    claims: Mapping[str, str] = field(default_factory=dict)
    cache: str | None = None

    def __post_init__(self) -> None:
        if not is_safe_url(self.issuer) or "?" in self.issuer or "#" in self.issuer:
            raise InvalidError(f"issuer {self.issuer!r} is no URL that begins with https:// (http:// for this machine alone)")
        if not self.audience:
            raise InvalidError(f"a rule for {self.issuer} names no audience; tokens made for others would be taken")
        if not any(glob.strip("*?") for name, glob in self.claims.items() if name not in _OF_ALL):
            raise InvalidError(f"a rule for {self.issuer} restricts no claim of whose a token is; everybody there would get in")
        if self.cache is not None:
            check_cache_name(self.cache)

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims of a verified token of the issuer are what the rule asks for."""
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        return self.audience in audiences and all(_matches(claims.get(name), glob) for name, glob in self.claims.items())

    @classmethod
    def parse(cls, text: str) -> IdentityRule:
        """Read `issuer=URL audience=NAME scope=push CLAIM=GLOB …`, words that are separated by spaces.

        Raises:
            InvalidError: `text` is no rule.
        """
        pairs: dict[str, str] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals or name in pairs:
                raise InvalidError(f"{word!r} in a rule is not name=value, or stands there twice")
            pairs[name] = value
        settings = {name: pairs.pop(name) for name in _SETTINGS if name in pairs}
        return cls._read(settings, pairs)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> IdentityRule:
        """Read a table with `issuer`, `audience`, `scope`, perhaps `cache`, and a table `claims`.

        Raises:
            InvalidError: it is no rule.
        """
        claims = table.get("claims", {})
        if not isinstance(claims, Mapping) or table.keys() - {*_SETTINGS, "claims"}:
            raise InvalidError(f"a rule has {', '.join(_SETTINGS)} and a table claims, not {', '.join(map(repr, table))}")
        return cls._read({name: value for name, value in table.items() if name != "claims"}, claims)

    @classmethod
    def _read(cls, settings: Mapping[str, Any], claims: Mapping[str, Any]) -> IdentityRule:
        """The rule of these settings and claims."""
        lacking = [name for name in _SETTINGS[:3] if name not in settings]
        if lacking:
            example = "issuer=https://ci.example.org audience=cache scope=push sub=repo:team/*"
            raise InvalidError(f"a rule lacks {' and '.join(lacking)}, as in {example}")
        if not all(isinstance(value, str) for value in (*settings.values(), *claims.values())):
            raise InvalidError("the settings and claims of a rule are texts")
        return cls(
            issuer=settings["issuer"],
            audience=settings["audience"],
            scope=Scope.parse(settings["scope"]),
            cache=settings.get("cache"),
            claims=dict(claims),
        )


def is_safe_url(url: str) -> bool:
    """Whether what comes from `url` comes from where it says: over TLS, or from this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _matches(value: Any, glob: str) -> bool:
    match value:
        case bool():
            return fnmatchcase(str(value).lower(), glob)
        case str() | int():
            return fnmatchcase(str(value), glob)
        case list():
            return any(_matches(each, glob) for each in value if not isinstance(each, list))
    return False

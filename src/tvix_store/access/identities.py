"""Identities: JSON Web Tokens of OIDC issuers, such as CI systems give their jobs, as grants. Source: RFC 7519, RFC 8725."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any

import jwt

from tvix_store.access.identity_rule import IdentityRule
from tvix_store.access.issuer_keys import IssuerKeys
from tvix_store.errors import UnavailableError
from tvix_store.model.grant import Grant, Scope

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""All have public keys. `none` is no signature, and for HS256 a public key would serve as the secret."""
_SKEW = 60.0
"""Seconds by which the clocks of issuer and store may differ."""
_REMEMBERED = 1000
"""Tokens whose grants are kept. To check one takes some 150 µs."""
_KEPT = 60.0
"""Seconds for which a grant is kept."""


class Identities:
    """The grants of tokens by some rules. It belongs to the running event loop."""

    def __init__(self, rules: Sequence[IdentityRule]) -> None:
        self._rules = rules
        self._keys = {rule.issuer: IssuerKeys(rule.issuer) for rule in rules}
        self._kept: dict[bytes, tuple[float, Grant]] = {}

    async def grant(self, text: str) -> Grant:
        """What a client may do that shows the token `text`. Of several rules that match, the one with the widest scope counts."""
        name = hashlib.sha256(text.encode()).digest()
        until, known = self._kept.get(name, (0.0, None))
        if known is not None and time.monotonic() < until:
            return known
        try:
            claims = await self._verified(text)
            matching = [rule for rule in self._rules if rule.issuer == claims["iss"] and rule.matches(claims)]
            left = float(claims["exp"]) + _SKEW - time.time()
        except UnavailableError as error:
            return _refused(str(error))
        except jwt.PyJWTError as error:
            return _refused(f"the identity token is not good: {_shown(error)}")
        except Exception:  # noqa: BLE001 - a stranger has written it: whatever it makes a library do, it grants nothing
            return _refused("the identity token is not good")
        who = f"{claims['iss']} {_shown(claims.get('sub', ''))}"
        if not matching:
            return _refused(f"no rule lets {who} in, by its audience and its claims")
        rule = max(matching, key=lambda each: each.scope)
        grant = Grant(rule.scope, who, rule.cache)
        self._keep(name, grant, time.monotonic() + min(_KEPT, left))
        return grant

    async def _verified(self, text: str) -> dict[str, Any]:
        """The claims of a token that one of our issuers has signed, and whose time has come and is not over."""
        # The library takes ten times as long, and is asked only about what claims to be by a key that we know.
        header, stated = map(_unverified, text.split(".")[:2])
        if header.get("alg") not in _ALGORITHMS:
            raise jwt.InvalidAlgorithmError("its algorithm is not one with public keys")
        issuer, name = stated.get("iss"), header.get("kid")
        keys = self._keys.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            raise jwt.InvalidIssuerError("its issuer is not known here")
        key = await keys.key(name) if name is None or isinstance(name, str) else None
        if key is None:
            raise jwt.InvalidKeyError("its issuer has no such key")
        if key.algorithm not in (None, header["alg"]):
            raise jwt.InvalidAlgorithmError("its key is for another algorithm")
        verified = jwt.decode_complete(
            text,
            key.public,
            algorithms=[header["alg"]],
            issuer=issuer,
            leeway=_SKEW,
            options={"require": ["exp", "iat", "iss", "aud"], "verify_aud": False},  # the rules look at the audience
        )
        if "crit" in verified["header"]:
            raise jwt.InvalidTokenError("it has extensions that must be understood")
        claims: dict[str, Any] = verified["payload"]
        return claims

    def _keep(self, name: bytes, grant: Grant, until: float) -> None:
        self._kept.pop(name, None)
        self._kept[name] = until, grant
        while len(self._kept) > _REMEMBERED:
            del self._kept[next(iter(self._kept))]


def _unverified(part: str) -> dict[str, Any]:
    """The JSON object in a part of a token. Nobody has looked at the signature: it only tells which key to look with."""
    found = json.loads(urlsafe_b64decode(part + "=="))
    if not isinstance(found, dict):
        raise jwt.DecodeError("a part of it is no JSON object")
    return found


def _refused(why: str) -> Grant:
    return Grant(Scope.NOTHING, refusal=why)


def _shown(value: object) -> str:
    """A text that somebody else wrote, for messages and logs."""
    text = str(value)[:200]
    return "".join(character if character.isprintable() else "?" for character in text)

"""IssuerKeys: the public keys of an OIDC issuer, fetched when they are needed, kept, and fetched again when they were rotated.

Source: OpenID Connect Discovery 1.0; RFC 7517.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import jwt

from tvix_store.access.identity_rule import is_safe_url
from tvix_store.concurrency.single_flight import SingleFlight
from tvix_store.errors import UnavailableError

_KEPT = 600.0
"""Seconds for which keys are believed without a look at the issuer. A key that the issuer withdrew is good for so long."""
_PAUSE = 5.0
"""Seconds between two fetches. A stranger can make up names of keys, and each unknown one asks the issuer."""
_TIME = 10.0
"""Seconds for both documents."""
_LARGEST = 1 << 20
"""Bytes of the largest document."""
_MOST_KEYS = 100


class IssuerKeys:
    """The keys of one issuer. It belongs to the running event loop."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fresh_until = 0.0
        self._not_before = 0.0
        self._fetches: SingleFlight[None, None] = SingleFlight(lambda _: asyncio.create_task(self._fetch()))

    async def key(self, name: str | None) -> jwt.PyJWK | None:
        """The key with a name (`kid`), or the only one where a token names none; None where the issuer has none such.

        Raises:
            UnavailableError: the issuer does not answer, or not with keys.
        """
        now = time.monotonic()
        if now >= self._fresh_until or (self._found(name) is None and now >= self._not_before):
            await self._fetches.result(None)
        return self._found(name)

    def _found(self, name: str | None) -> jwt.PyJWK | None:
        if name is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(name)

    async def _fetch(self) -> None:
        now = time.monotonic()
        if now < self._not_before:
            if self._keys and now < self._fresh_until:
                return
            raise UnavailableError(f"the keys of {self._issuer} could not be fetched just now")
        self._not_before = now + _PAUSE
        try:
            async with asyncio.timeout(_TIME), aiohttp.ClientSession(trust_env=True) as session:
                found = await self._document(session, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self._issuer:
                    raise UnavailableError(f"{self._issuer} calls itself {str(found.get('issuer'))[:200]!r}")
                where = found.get("jwks_uri")
                if not isinstance(where, str) or not is_safe_url(where):
                    raise UnavailableError(
                        f"{self._issuer} has its keys at {str(where)[:200]!r}, which is no URL that begins with https://"
                    )
                keys = (await self._document(session, where)).get("keys")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            raise UnavailableError(f"the keys of {self._issuer} cannot be fetched: {str(error) or type(error).__name__}") from None
        self._keys = _signing_keys(keys)
        self._fresh_until = time.monotonic() + _KEPT

    async def _document(self, session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise UnavailableError(f"{url} is answered with status {response.status}")
            text = bytearray()
            async for piece in response.content.iter_any():
                text += piece
                if len(text) > _LARGEST:
                    raise UnavailableError(f"{url} has more than {_LARGEST} bytes")
        document = json.loads(bytes(text))
        if not isinstance(document, dict):
            raise UnavailableError(f"{url} is no JSON object")
        return document


def _signing_keys(keys: Any) -> dict[str | None, jwt.PyJWK]:
    """The public keys for signatures by name. Others, which the issuer may have as well, are left out."""
    found: dict[str | None, jwt.PyJWK] = {}
    for key in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(key, dict) or key.get("use", "sig") != "sig" or key.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            made = jwt.PyJWK(key)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        found[made.key_id] = made
    return found

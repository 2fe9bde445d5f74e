"""IssuerKeys: the public keys of an OIDC issuer, fetched when they are needed, kept, and fetched again when they were rotated.

Source: OpenID Connect Discovery 1.0; RFC 7517.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
from yarl import URL

from tvix_store.access.identity_rule import is_safe_url
from tvix_store.client_environment.authorities import trusted_authorities
from tvix_store.client_environment.proxies import Proxies
from tvix_store.errors import UnavailableError

_log = logging.getLogger(__name__)
_KEPT = 600.0
"""Seconds for which keys are believed without a look at the issuer. A key that the issuer withdrew is good for so long."""
_PAUSE = 5.0
"""Seconds between the end of a fetch and the next. A stranger can make up names of keys, and each unknown one asks the issuer."""
_TIME = 10.0
"""Seconds for both documents."""
_LARGEST = 1 << 20
"""Bytes of the largest document."""
_MOST_KEYS = 100
_MOST_WAITING = 1000
"""Most requests that wait for a fetch. Strangers may be among them."""
_LOG_PAUSE = 10.0
"""Seconds between two lines in the log about an issuer."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key for signatures.

    public: As `cryptography` has it.
    algorithm: The only one that it is for; None where the issuer names none.
    """

    public: Any
    algorithm: str | None


class IssuerKeys:
    """The keys of one issuer. It belongs to the running event loop.

    A fetch goes on when those who wait for it go away. Else a stranger that asks, and leaves at once, could keep the keys away.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys: dict[str | None, SigningKey] = {}
        self._fresh_until = 0.0
        self._not_before = 0.0
        self._log_at = 0.0
        self._fetch: asyncio.Task[None] | None = None
        self._waiting = 0

    async def key(self, name: str | None) -> SigningKey | None:
        """The key with a name (`kid`), or the only one where a token names none; None where the issuer has none such.

        Raises:
            UnavailableError: the issuer does not answer, or not with keys.
        """
        if not self._is_fresh or self._found(name) is None:
            await self._fetched()
        if not self._is_fresh:
            raise UnavailableError(f"the keys of {self._issuer} cannot be fetched now")
        return self._found(name)

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    def _found(self, name: str | None) -> SigningKey | None:
        if name is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(name)

    async def _fetched(self) -> None:
        """Wait for the fetch that is under way, or for a new one, where it is time for that."""
        if self._fetch is None:
            if time.monotonic() < self._not_before:
                return
            self._fetch = asyncio.create_task(self._fetch_and_keep())
        if self._waiting >= _MOST_WAITING:
            return
        self._waiting += 1
        try:
            await asyncio.shield(self._fetch)
        finally:
            self._waiting -= 1

    async def _fetch_and_keep(self) -> None:
        try:
            async with asyncio.timeout(_TIME):
                keys = await self._documents()
            self._keys = await asyncio.to_thread(_signing_keys, keys)
            self._fresh_until = time.monotonic() + _KEPT
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers, it is no answer
            now = time.monotonic()
            if now >= self._log_at:
                self._log_at = now + _LOG_PAUSE
                _log.error("the keys of %s cannot be fetched: %s", self._issuer, str(error)[:500] or type(error).__name__)
        finally:
            self._fetch = None
            self._not_before = time.monotonic() + _PAUSE

    async def _documents(self) -> Any:
        """The issuer's keys, by way of the document that says where they are."""
        # Without `trust_env`, which would send what a netrc file has for the issuer.
        is_tls = self._issuer.startswith("https:")
        connector = aiohttp.TCPConnector(ssl=await trusted_authorities() if is_tls else True)
        async with aiohttp.ClientSession(connector=connector) as session:
            found = await _document(session, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if found.get("issuer") != self._issuer:
                raise UnavailableError(f"it calls itself {str(found.get('issuer'))[:200]!r}")
            where = found.get("jwks_uri")
            if not isinstance(where, str) or not is_safe_url(where):
                raise UnavailableError(f"they are at {str(where)[:200]!r}, which is no URL that begins with https://")
            return (await _document(session, where)).get("keys")


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False, proxy=Proxies().proxy_of(URL(url))) as response:
        if response.status != 200:
            raise UnavailableError(f"{url} is answered with status {response.status}")
        text = bytearray()
        async for piece in response.content.iter_any():
            text += piece
            if len(text) > _LARGEST:
                raise UnavailableError(f"{url} has more than {_LARGEST} bytes")
    document = await asyncio.to_thread(json.loads, bytes(text))
    if not isinstance(document, dict):
        raise UnavailableError(f"{url} is no JSON object")
    return document


def _signing_keys(keys: Any) -> dict[str | None, SigningKey]:
    """The public keys for signatures by name. Others, which the issuer may have as well, are left out."""
    found: dict[str | None, SigningKey] = {}
    for key in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(key, dict) or key.get("use", "sig") != "sig" or key.get("kty") not in ("RSA", "EC", "OKP") or "d" in key:
            continue
        name = key.get("kid")
        if name is not None and not isinstance(name, str):
            continue
        try:
            found[name] = SigningKey(jwt.PyJWK(key).key, key.get("alg"))
        except Exception as error:  # noqa: BLE001 - a key that nobody can read is none, whatever the reason
            _log.debug("a key is left out: %s", error)
    return found

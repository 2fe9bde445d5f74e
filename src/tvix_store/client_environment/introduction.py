"""What a binary cache says of itself: its store directory, and the keys that it signs with."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO

from tvix_store.client_environment.credentials import Credentials
from tvix_store.client_environment.netrc_text import USER
from tvix_store.errors import DeniedError, InvalidError, UnavailableError
from tvix_store.model.address import without_secrets
from tvix_store.model.cache_info import MAX_CACHE_INFO, NAME, CacheInfo

_TIMEOUT = 15.0
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Introduction:
    """store_dir: None if the cache does not tell. public_keys: None if the cache is none of ours, and so does not tell."""

    store_dir: str | None
    public_keys: tuple[str, ...] | None


def ask_cache(url: str, token: str | None, authorities: ssl.SSLContext) -> Introduction:
    """Ask the cache at `url`, with a token if it wants one. Blocks.

    A daemon of ours answers with JSON at its URL; see docs/design/http.md. Others have `nix-cache-info` alone.

    Raises:
        DeniedError: the token is missing, or wrong.
        InvalidError: it is no binary cache.
        UnavailableError: it does not answer.
    """
    base = url.partition("?")[0].rstrip("/")
    described = _get(f"{base}/{NAME}", token, authorities, MAX_CACHE_INFO)
    info = CacheInfo.parse(described or b"")
    if described is None or not info.values.get("StoreDir"):
        raise InvalidError(f"{without_secrets(base)} is no binary cache: it has no {NAME}")
    return Introduction(info.store_dir, _keys(_get(f"{base}/", token, authorities, _LARGEST, needed=False)))


def _keys(answer: bytes | None) -> tuple[str, ...] | None:
    try:
        told = json.loads(answer or b"")
        if told["program"] != "tvix-store":
            return None
        return tuple(str(key) for key in told["publicKeys"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from TLS to what anybody on the way could change: a key that comes from there would be trusted."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it leads to {without_secrets(newurl)}, which is not protected")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(url: str, token: str | None, authorities: ssl.SSLContext, largest: int, *, needed: bool = True) -> bytes | None:
    """The body of an answer; None for one that is not there, and for a refusal where the answer is not `needed`."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - the caller has checked it
    if token is not None:
        # Not for those to whom the cache redirects.
        request.add_unredirected_header("Authorization", Credentials(USER, token).header)
    opener = urllib.request.build_opener(_SafeRedirects, urllib.request.HTTPSHandler(context=authorities))
    shown = without_secrets(url)
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            body: bytes = answer.read(largest)
            return body
    except urllib.error.HTTPError as error:
        if not needed and error.code < 500:  # as S3 says 403 of what it does not have
            return None
        if error.code in (401, 403):
            wanted = "it wants a token: --token-file" if token is None else "it does not take this token"
            raise DeniedError(f"{shown} answers {error.code}: {wanted}") from None
        if error.code == 404:
            return None
        raise UnavailableError(f"{shown} answers {error.code}") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise UnavailableError(f"{shown} cannot be reached: {reason}") from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{shown} cannot be reached: {str(error) or type(error).__name__}") from None

"""Binary caches as sources of a copy."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.backends import nix_http
from tvix_store.config.upstream_content import open_upstream_content
from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey
from tvix_store.operations.paths.copy_from_cache import Cache


async def open_cache(url: str, public_keys: Sequence[PublicKey], *, store_dir: str) -> Cache:
    """The cache at `url`. `public_keys` are trusted beside those in the URL.

    Raises:
        InvalidError: the URL is malformed, or there is no key to check signatures with.
    """
    address = nix_http.CacheAddress.parse(url)
    keys = tuple(dict.fromkeys((*address.public_keys, *public_keys)))
    if address.require_signatures and not keys:
        raise InvalidError(
            f"{address.name}: there is no key to check its signatures with; give it as ?trusted-public-keys=name:base64, "
            "or, where the connection is trusted, as ?require-signatures=false"
        )
    upstream = await nix_http.open_cache(address, store_dir=store_dir, open_parts=open_upstream_content)
    return Cache(upstream, keys, unsigned=not address.require_signatures)

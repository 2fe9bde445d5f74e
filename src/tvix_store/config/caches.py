"""Binary caches by their addresses: to fetch from, and to copy to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvix_store.backends import nix_file, nix_http
from tvix_store.config.upstream_content import open_upstream_content
from tvix_store.errors import InvalidError
from tvix_store.model import well_known_caches
from tvix_store.model.address import Address
from tvix_store.model.cache_terms import WriteTerms
from tvix_store.model.signature import PublicKey
from tvix_store.operations.paths.copy_from_cache import Cache
from tvix_store.services.upstream import Upstream
from tvix_store.services.writable_cache import WritableCache

CacheAddress: TypeAlias = nix_http.CacheAddress | nix_file.DirectoryAddress


@dataclass(frozen=True, slots=True)
class Target:
    """A cache to copy to, and how it is written."""

    cache: WritableCache
    terms: WriteTerms


def parse_cache(url: str) -> CacheAddress:
    """The place of a cache to fetch from, and the terms of its use.

    Raises:
        InvalidError: the URL is malformed.
    """
    return nix_file.DirectoryAddress.parse(url) if nix_file.is_directory(url) else nix_http.CacheAddress.parse(url)


def believed_keys(address: CacheAddress, more: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """The keys, one of which must have signed a path. If the address names keys, these alone count for the cache.

    Else `more` count, and the key of a well-known cache.

    Raises:
        InvalidError: there is none, and unsigned paths are not taken.
    """
    keys = address.terms.public_keys
    if not keys:
        host = (address.url.host or "").lower() if isinstance(address, nix_http.CacheAddress) else ""
        known = (PublicKey.parse(well_known_caches.KEYS[host]),) if host in well_known_caches.KEYS else ()
        keys = tuple(dict.fromkeys((*more, *known)))
    if address.terms.require_signatures and not keys:
        raise InvalidError(
            f"{address.name}: there is no key to check its signatures with; give it as ?trusted-public-keys=name:base64, "
            "or, where what it says is to be trusted, as ?require-signatures=false"
        )
    return keys


async def open_upstream(address: CacheAddress, store_dir: str) -> Upstream:
    """The cache at `address`.

    Raises:
        InvalidError: it is for another store directory.
    """
    if isinstance(address, nix_file.DirectoryAddress):
        return nix_file.open_cache(address, store_dir=store_dir)
    return await nix_http.open_cache(address, store_dir=store_dir, open_parts=open_upstream_content)


async def open_cache(url: str, public_keys: Sequence[PublicKey], *, store_dir: str) -> Cache:
    """The cache at `url`. `public_keys` are trusted where the URL names no key.

    Raises:
        InvalidError: the URL is malformed, or there is no key to check signatures with.
    """
    address = parse_cache(url)
    keys, unsigned = believed_keys(address, public_keys), not address.terms.require_signatures
    if isinstance(address, nix_file.DirectoryAddress):
        directory = nix_file.open_cache(address, store_dir=store_dir)
        return Cache(directory, keys, unsigned, directory.output_hashes)
    return Cache(await open_upstream(address, store_dir), keys, unsigned)


async def open_target(url: str, *, store_dir: str) -> Target:
    """The cache at `url`, to copy to. Nothing is written yet.

    Raises:
        InvalidError: the URL is malformed.
    """
    if nix_file.is_directory(url):
        directory = nix_file.WritableAddress.parse(url)
        return Target(nix_file.DirectoryWriter(directory.directory, store_dir=store_dir), directory.terms)
    place = nix_http.CacheAddress.parse(url.partition("?")[0])
    return Target(await nix_http.open_writer(place, store_dir=store_dir), WriteTerms.read(Address.parse(url)))

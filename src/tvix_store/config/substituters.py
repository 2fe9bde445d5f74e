"""A store that fetches from upstream caches what it lacks."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tvix_store.config.caches import CacheAddress, believed_keys, open_upstream, parse_cache
from tvix_store.errors import InvalidError
from tvix_store.layers.fetch_lease import FetchLease
from tvix_store.layers.fetch_lock import FetchLock
from tvix_store.layers.observed_upstream import ObservedUpstream
from tvix_store.layers.substituter import Substituter, Terms
from tvix_store.layers.substituters import Substituters
from tvix_store.layers.substituting import SubstitutingPathInfos
from tvix_store.layers.substituting_documents import SubstitutingDocuments
from tvix_store.model.address import Address
from tvix_store.model.cache_terms import without_ignored
from tvix_store.model.signature import PublicKey
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store

_log = logging.getLogger(__name__)
_LOCK_NAME = "fetching.lock"
_SHARED = ("objectstore+", "postgres")
"""How the schemes begin of stores that several machines use without a daemon between them."""


def checked_urls(urls: Sequence[str], *, require_signatures: bool = False) -> list[str]:
    """The URLs without the parameters that mean nothing here, of which the log has a line; for who opens them more than once.

    With `require_signatures`, no cache may be one whose unsigned paths are taken. The store would sign such paths with its own key,
    as if a trusted key had signed them.

    Raises:
        InvalidError: a URL is malformed, or such a one.
    """
    for url in urls:
        address = parse_cache(url)
        _warn_of_ignored(address)
        if require_signatures and not address.terms.require_signatures:
            raise InvalidError(
                f"{address.name}: its unsigned paths would be taken, but signatures are required; "
                "give its key as ?trusted-public-keys=name:base64, or leave one of the two out"
            )
    return [without_ignored(url)[0] for url in urls]


async def with_substituters(
    store: Store, urls: Sequence[str], public_keys: Sequence[PublicKey], lock: FetchLock | FetchLease | None
) -> Store:
    """`store`, looking for what it lacks at the caches at `urls`. `public_keys` are trusted for those that name no key.

    Raises:
        InvalidError: a URL is malformed, or there is no key to check its signatures with.
    """
    addresses = [parse_cache(url) for url in urls]
    for address in addresses:
        _warn_of_ignored(address)
        believed_keys(address, public_keys)
    upstreams = Substituters([await _opened(address, store, public_keys) for address in addresses])
    layer = SubstitutingPathInfos(store, upstreams, lock)

    async def close() -> None:
        try:
            await layer.close()
        finally:
            await store.close()

    documents = SubstitutingDocuments(store, upstreams)
    # What is fetched, the layer puts into the store itself. The store counts what it holds, as it lists that.
    filled = store.with_services(path_infos=layer, keep=["statistics", "named_paths", "arrivals", "removal"])
    return replace(filled, foreign_documents=documents, foreign_paths=layer, close=close)


async def _opened(address: CacheAddress, store: Store, public_keys: Sequence[PublicKey]) -> Substituter:
    upstream = await open_upstream(address, store.store_dir)
    keys, said = believed_keys(address, public_keys), address.terms
    terms = Terms(keys, unsigned=not said.require_signatures, priority=said.priority, negative_ttl=said.negative_ttl)
    return Substituter(ObservedUpstream(upstream), terms)


def _warn_of_ignored(address: CacheAddress) -> None:
    ignored = address.terms.ignored
    if ignored:
        _log.warning("substituter %s: ignored, since it means nothing here: %s", address.name, ", ".join(ignored))


def fetch_lease(path_infos: str, records: RecordService | None) -> FetchLease | FetchLock | None:
    """The lock of all processes that have path infos at this address: in the store's `records`, where machines share these."""
    shared = Address.parse(path_infos).scheme.startswith(_SHARED)
    return FetchLease(records) if shared and records is not None else fetch_lock(path_infos)


def fetch_lock(path_infos: str) -> FetchLock | None:
    """The lock of all processes here that have path infos at this address: in the store's directory, else in one of ours."""
    address = Address.parse(path_infos)
    if address.scheme == "memory":
        return None
    if address.scheme == "local":
        from tvix_store.backends.local.disk import open_or_create
        from tvix_store.config.local_directory import own_directory_of

        # One of each named cache: an upstream of one cache must not keep the fetches of others waiting.
        return FetchLock(own_directory_of(address) / _LOCK_NAME, open_or_create)
    name = hashlib.sha256(path_infos.encode()).hexdigest()[:16]
    return FetchLock(_own_directory() / f"{name}.{_LOCK_NAME}")


def _own_directory() -> Path:
    """A directory of this user alone, for what need not outlive the machine's."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(given) if given else Path(tempfile.gettempdir())
    directory /= f"tvix-store-{os.geteuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or not directory.is_dir() or directory.is_symlink():
        raise InvalidError(f"{directory} belongs to somebody else")
    return directory

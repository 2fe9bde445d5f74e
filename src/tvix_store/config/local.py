"""Addresses of the backend `local`: `local:///path`, or the path alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path

from tvix_store.backends import local
from tvix_store.backends.local.caches import cache_directory
from tvix_store.backends.local.collection_lock import FILE as COLLECTION_LOCK
from tvix_store.backends.local.disk import disk_errors, make_directory
from tvix_store.backends.local.engine import READ_THREADS
from tvix_store.backends.local.file_lock import alone
from tvix_store.backends.local.settings import FILE as SETTINGS
from tvix_store.backends.local.settings import is_missing
from tvix_store.config.local_directory import directory_of, own_directory_of, read_cache
from tvix_store.config.scheme import Opening, Scheme
from tvix_store.config.size_rule import read_size_rule
from tvix_store.errors import InvalidError, NoStoreError
from tvix_store.model.address import Address, read_switch
from tvix_store.model.byte_size import read_bytes
from tvix_store.model.time_span import read_span
from tvix_store.services.removal import HOUR
from tvix_store.services.store import Store

_MOST_THREADS = 256


def _read_threads(text: str) -> int:
    threads = int(text)
    if not 0 <= threads <= _MOST_THREADS:
        raise ValueError(text)
    return threads


PARAMETERS: dict[str, Callable[[str], object]] = {
    "chunk_average": int,
    "compression_level": int,
    "pack_size": int,
    "size_rule": read_size_rule,
    "threads": _read_threads,
    "read-only": read_switch,
    "cache": read_cache,
    "quota": read_bytes,
    "retention": read_span,
}


async def open_address(address: Address, opening: Opening) -> Store:
    """Open `local:///path?chunk_average=BYTES&compression_level=LEVEL&pack_size=BYTES&size_rule=documented|snix&threads=NUMBER`.

    Without a path it is the default one. A worker opens it without threads. With `&read-only=1` nothing of it is written or locked.
    `&cache=NAME` is a named cache: a store with paths of its own, over the content of this one. Its files have at most
    `&quota=BYTES`, also as `50G`, all together. Paths that nobody uses for `&retention=90d` go, while it is open.
    """
    directory = directory_of(address)
    settings = address.read_parameters(PARAMETERS)
    if opening.as_worker:
        settings["threads"] = 0
        settings.pop("retention", None)
    if (read_only := settings.pop("read-only", False)) or not opening.create:
        missing = missing_store(address)
        if missing is not None:
            raise NoStoreError(f"there is no {missing}")
    cache, quota, retention = (settings.pop(name, None) for name in ("cache", "quota", "retention"))
    for name, value in (("quota", quota), ("retention", retention)):
        if value is not None and cache is None:
            raise InvalidError(f"{address.text}: only a named cache has a {name}")
    if retention is not None and retention < HOUR:
        raise InvalidError(f"{address.text}: the least retention is an hour")
    store = await local.open_store(
        directory, store_dir=opening.store_dir, read_only=read_only, scrub_days=opening.scrub_days, **settings
    )
    if not address.path:
        store = replace(store, name=f"local://{directory}")
    if cache is None:
        return store if opening.as_worker else await _noting_uses(store)
    return await _opened_cache(store, directory, cache, quota, retention, settings.get("threads", READ_THREADS))


async def _noting_uses(store: Store) -> Store:
    from tvix_store.layers.noting_uses import noting_uses

    try:
        return await noting_uses(store)
    except BaseException:
        await store.close()
        raise


async def _opened_cache(
    content: Store, directory: Path, name: str, quota: int | None, retention: float | None, threads: int
) -> Store:
    """The named cache over a store's content, which is closed with it."""
    from tvix_store.layers.holding import RetentionTerms, named_cache

    own_directory = cache_directory(directory, name)
    try:
        if not content.read_only:
            with disk_errors(directory):
                make_directory(own_directory.parent)
        own = await local.open_store(own_directory, store_dir=content.store_dir, read_only=content.read_only, threads=threads)
    except BaseException:
        await content.close()
        raise
    terms = None
    if retention is not None and not content.read_only:
        terms = RetentionTerms(name, ceil(retention / HOUR), partial(alone, own_directory / "packs"))
    return named_cache(content, own, quota, terms)


@contextmanager
def only_one(directory: Path) -> Iterator[bool]:
    """A lock that says which of the daemons of a store lets its collection run; whether this process has it."""
    with alone(directory / SETTINGS) as is_alone:
        yield is_alone


def collected_at(directory: Path) -> float:
    """When the last collection of a store has ended (seconds since 1970); 0 where there was none."""
    try:
        return (directory / COLLECTION_LOCK).stat().st_mtime
    except OSError:
        return 0.0


def missing_store(address: Address) -> str | None:
    """The store, or the named cache of one, at an address, where nothing is there: as `store in /path`. None where it is there.

    Raises:
        NoStoreError: something else is there.
        InvalidError: the address is malformed, or of a file.
        DeniedError, UnavailableError: the directory cannot be read.
    """
    address.read_parameters(PARAMETERS)
    directory, own = directory_of(address), own_directory_of(address)
    if is_missing(directory):
        return f"store in {directory.absolute()}"
    return f"cache {address.parameters['cache']} of the store in {directory.absolute()}" if is_missing(own) else None


SCHEME = Scheme(open_address, works_here=True)

"""The directory at an address of the backend `local`."""

from __future__ import annotations

from pathlib import Path

from tvix_store.backends.local.caches import cache_directory
from tvix_store.config.user_directories import data_directory
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address
from tvix_store.model.cache_name import check_cache_name


def read_cache(name: str) -> str:
    check_cache_name(name)
    return name


def own_directory_of(address: Address) -> Path:
    """The directory of the path infos at an address: that of the store, or of its named cache."""
    directory, cache = directory_of(address), address.parameters.get("cache")
    return cache_directory(directory, read_cache(cache)) if cache else directory


def directory_of(address: Address) -> Path:
    """The directory of the store at an address.

    Raises:
        InvalidError: the address names a host, or a relative path in a URL.
    """
    if address.host:
        raise InvalidError(f"{address.text}: an absolute path has three slashes, as in local:///{address.host}{address.path}")
    if address.path and address.path != address.text and not address.path.startswith("/"):
        relative = address.path.removeprefix("./")
        raise InvalidError(f"{address.text}: the path in a URL is absolute; a relative one stands alone, as in ./{relative}")
    return Path(address.path) if address.path else data_directory()

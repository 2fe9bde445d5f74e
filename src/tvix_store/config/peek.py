"""Names in a local store, without opening it: for the completion of words in a shell."""

from __future__ import annotations

from pathlib import Path

from tvix_store.backends.local.caches import cache_directories
from tvix_store.backends.local.peek import peek_paths, peek_records
from tvix_store.backends.local.settings import load
from tvix_store.config.local_directory import own_directory_of
from tvix_store.config.user_directories import data_directory
from tvix_store.model.address import Address
from tvix_store.model.store_path import STORE_DIR

__all__ = ["cache_names", "local_directory", "peek_paths", "peek_records", "store_dir_of"]


def local_directory(address: str | None) -> Path | None:
    """The directory of the path infos at an address (None: the default one). None for a store that is no directory.

    Raises:
        InvalidError: the address is malformed.
    """
    if address is None:
        return data_directory()
    parsed = Address.parse(address)
    return own_directory_of(parsed) if parsed.scheme == "local" else None


def store_dir_of(directory: Path) -> str:
    """The store directory that a store was made for.

    Raises:
        NoStoreError: there is no store.
        InvalidError, CorruptError: its settings cannot be read.
    """
    return load(directory, {}).store_dir or STORE_DIR


def cache_names(directory: Path) -> list[str]:
    """The names of the named caches of a store."""
    return [each.name for each in cache_directories(directory)]

"""The backend `file://`: a binary cache in a directory, as Nix writes it.

It consists of `nix-cache-info`, `<hash>.narinfo` for each path, and `nar/<hash of the file>.nar.zst`.
"""

from __future__ import annotations

from tvix_store.backends.nix_file.address import DirectoryAddress, WritableAddress, is_directory
from tvix_store.backends.nix_file.cache import DirectoryCache
from tvix_store.backends.nix_file.writer import DirectoryWriter
from tvix_store.model.store_path import STORE_DIR

__all__ = ["DirectoryAddress", "DirectoryCache", "DirectoryWriter", "WritableAddress", "is_directory", "open_cache"]


def open_cache(address: DirectoryAddress, *, store_dir: str = STORE_DIR) -> DirectoryCache:
    """The cache at `address`. Nothing is read before something is asked for.

    Raises:
        InvalidError: the cache is for another `store_dir`.
    """
    address.terms.check_store_dir(address.name, store_dir)
    return DirectoryCache(address.directory, store_dir=store_dir)

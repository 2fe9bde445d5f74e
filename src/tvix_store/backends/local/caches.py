"""Where the named caches of a store lie: each is a local store of path infos and records, whose content is that of the store."""

from __future__ import annotations

from pathlib import Path

from tvix_store.backends.local.settings import FILE

CACHES = "caches"


def cache_directory(store: Path, name: str) -> Path:
    """The directory of a named cache."""
    return store / CACHES / name


def cache_directories(store: Path) -> list[Path]:
    """The directories of all named caches that there are."""
    return sorted(path.parent for path in (store / CACHES).glob(f"*/{FILE}"))

"""Where a user's data and caches lie. Source: XDG Base Directory Specification 0.8, which says to ignore relative paths."""

from __future__ import annotations

import os
from pathlib import Path


def data_directory() -> Path:
    """That of the default store: `/var/lib/tvix-store` for root, else `tvix-store` in the user's data directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/tvix-store")
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local/share") / "tvix-store"


def cache_directory() -> Path | None:
    """`tvix-store` in the user's cache directory; None for a user without a home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (cache if cache.is_absolute() else Path.home() / ".cache") / "tvix-store"
    except RuntimeError:
        return None

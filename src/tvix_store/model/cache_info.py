"""CacheInfo: the text `nix-cache-info`, with which a binary cache introduces itself.

Lines of `Key: value`. Source: nix, src/libstore/binary-cache-store.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NAME = "nix-cache-info"
MAX_CACHE_INFO = 64 * 1024
"""Longest text in bytes that is read."""


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The values of the text by their keys."""

    values: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> CacheInfo:
        """Read the text as Nix does: lines that it does not understand are passed over."""
        lines = (line.partition(":") for line in data.decode(errors="replace").splitlines())
        return cls({key.strip(): value.strip() for key, _, value in lines})

    @property
    def store_dir(self) -> str | None:
        """The store directory that the cache is for, where it tells."""
        return self.values.get("StoreDir")

    @property
    def priority(self) -> int | None:
        """The rank among caches, where it tells one that is a number."""
        stated = self.values.get("Priority", "")
        return int(stated) if stated.isascii() and stated.isdigit() and len(stated) <= 9 else None

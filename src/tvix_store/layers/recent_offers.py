"""RecentOffers: what an upstream has said of paths, for a short while."""

from __future__ import annotations

import time

from tvix_store.model.narinfo import NarInfo

_OFFERED_FOR = 30.0
"""Seconds for which a narinfo is remembered: a client asks for its NAR next, and builds ask for the same paths again and again."""
_MOST_BYTES = 16 << 20
"""Bytes of memory that all narinfos take, about."""


class RecentOffers:
    """Narinfos by output hash. The oldest go first."""

    def __init__(self) -> None:
        self._offers: dict[bytes, tuple[float, NarInfo]] = {}  # until when it holds, in that order
        self._bytes = 0

    def get(self, output_hash: bytes) -> NarInfo | None:
        """The narinfo of a path, if it was put a short while ago."""
        offer = self._offers.get(output_hash)
        return offer[1] if offer is not None and time.monotonic() < offer[0] else None

    def put(self, output_hash: bytes, narinfo: NarInfo) -> None:
        """Remember a narinfo in place of an older one."""
        self.forget(output_hash)
        self._offers[output_hash] = time.monotonic() + _OFFERED_FOR, narinfo
        self._bytes += _size(narinfo)
        while self._bytes > _MOST_BYTES:
            self.forget(next(iter(self._offers)))

    def forget(self, output_hash: bytes) -> None:
        """Remember nothing of a path."""
        offer = self._offers.pop(output_hash, None)
        if offer is not None:
            self._bytes -= _size(offer[1])


def _size(narinfo: NarInfo) -> int:
    """About how many bytes of memory it takes."""
    texts = len(narinfo.url) + len(narinfo.compression) + len(narinfo.system or "")  # nobody signs them: they may be padded
    return 2000 + texts + 250 * (len(narinfo.references) + len(narinfo.signatures))

"""ForeignDocuments: documents that Nix puts beside narinfos, from upstream caches."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol


class ForeignDocuments(Protocol):
    """Documents that the store lacks, and upstream caches have."""

    async def get(self, kind: str, name: str) -> bytes | AsyncGenerator[bytes, None] | None:
        """The document `<kind>/<name>`, or None. It was checked as far as possible.

        `kind` is `realisations`, `build-trace-v2`, `log` or `debuginfo`; `name` is the rest of its path, without a suffix of it.
        A large one comes in pieces: they have begun; read them on, or close them.

        Raises:
            UnavailableError: too many are under way.
        """
        ...

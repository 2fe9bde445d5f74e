"""NamedPaths: an optional power of a store, to find the other versions of a package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tvix_store.model.store_path import StorePath


class NamedPaths(Protocol):
    """Finds store paths by the names of packages."""

    async def versions(self, path: StorePath) -> Sequence[StorePath]:
        """The paths of the store that are the same output of the same package as `path`, without itself: the nearest version first.

        It may be some seconds behind.
        """
        ...

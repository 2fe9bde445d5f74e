"""LoneFiles: an optional power of a server's store, for large files that are all of a store path."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol

from tvix_store.model.digest import Digest


class LoneFiles(Protocol):
    """A server reads a blob once more when the path info comes, to know its NAR; unless it was told the NAR's head before."""

    async def put(self, data: AsyncIterable[bytes], size: int, *, executable: bool) -> Digest:
        """As `BlobService.put`, of a file of `size` bytes: the server may know its NAR then. Where `size` is wrong, it does not.

        Raises:
            ExhaustedError: as `BlobService.put`.
        """
        ...

"""Named caches: stores of their own over one content, none of which tells of another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tvix_store.config import open_store
from tvix_store.services.store import Store
from tvix_store.testing.contracts import (
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    StagingContract,
    StoredFramesContract,
    StoreWithRecordsContract,
)

OpenCache = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def open_cache(tmp_path: Path) -> AsyncIterator[OpenCache]:
    """Opens named caches of one store; without a name, the store itself."""
    async with AsyncExitStack() as opened:

        async def open_one(name: str) -> Store:
            return await opened.enter_async_context(
                await open_store(f"local://{tmp_path}/store" + (f"?cache={name}" if name else ""))
            )

        yield open_one


class TestNamedCache(
    StoreWithRecordsContract,
    AssemblingContract,
    DeltasContract,
    GranularContract,
    KnownNarsContract,
    StagingContract,
    StoredFramesContract,
):
    """A cache is a store."""

    @pytest.fixture
    async def store(self, open_cache: OpenCache) -> Store:
        return await open_cache("one")

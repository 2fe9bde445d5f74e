from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.operations.collection.paths import Collected
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory


@pytest.fixture(params=["memory", "local"])
async def collected(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Collected]:
    """A store, empty, in whose hours somebody has looked."""
    store = await (open_memory() if request.param == "memory" else open_local(tmp_path / "store"))
    async with store:
        found = Collected(store)
        await found.hours.look()
        await found.let_pass(100)
        yield found

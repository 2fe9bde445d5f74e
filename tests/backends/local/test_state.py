"""Whatever is done to a local store, in whatever order, it answers as the memory store does."""

from __future__ import annotations

from hypothesis import settings

from tvix_store.backends.local import open_store
from tvix_store.services.store import Store
from tvix_store.testing.state_machine import StoreMachine


class LocalMachine(StoreMachine):
    durable = True

    async def open(self) -> Store:
        return await open_store(self.directory)


TestLocal = LocalMachine.TestCase
TestLocal.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)

"""Target: where the content of one import goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from tvix_store.services.staging import NO_RECORDS, StagedNar
from tvix_store.services.store import Store


class Target:
    """Takes content to a store: by a stage, if the store has stages. Close it at the end: content that was not accepted goes then.

    store: The store with the services to put content by. With `rechecks`, these mend content that is there and damaged.
    """

    def __init__(self, store: Store, *, rechecks: bool = False) -> None:
        self._whole = store
        self._since = store.begin_nar()
        self._stage = None if store.staging is None else store.staging.begin(rechecks=rechecks)
        stage = self._stage
        self.store = store if stage is None else store.with_services(blobs=stage.blobs, directories=stage.directories)

    def new_bytes(self) -> int | None:
        """The bytes of chunks that the store lacks, when all is put, before `accept`. None for a store without stages."""
        return None if self._stage is None else self._stage.new_bytes()

    async def accept(self, nar: StagedNar | None = None, records: Mapping[bytes, bytes] = NO_RECORDS) -> None:
        """Make the content a part of the store, with what is known of its NAR. A stage does all of it in one commit.

        `records` go where the store keeps links. They are not durable.
        """
        stage, store = self._stage, self._whole
        if stage is not None and store.records is not None:
            await stage.accept(nar, records)
            return
        if stage is not None:
            await stage.accept(nar)
        # Side by side, so that they wait for the same commit.
        waiting: list[Coroutine[Any, Any, None]] = []
        if stage is None and nar is not None:
            waiting.append(store.remember_nar(*nar, self._since))
        links = store.records or store.links
        if links is not None and records:
            waiting.append(links.put(records, durable=False))
        await asyncio.gather(*waiting)

    async def close(self) -> None:
        """Take back content that was not accepted. A store without stages keeps it."""
        if self._stage is not None:
            await self._stage.close()

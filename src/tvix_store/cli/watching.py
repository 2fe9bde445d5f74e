"""The work of `tvix-store watch-store`: to queue what is new, and to push what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tvix_store.cli.push_queue import chosen_targets
from tvix_store.cli.push_queued import drain, say, serve, until_signal
from tvix_store.errors import StoreError
from tvix_store.operations.paths.new_paths import Filter, NewPaths
from tvix_store.operations.paths.nix_database import NixDatabase
from tvix_store.operations.paths.nix_store import NixStore
from tvix_store.operations.paths.push_queue import PushQueue

LOOK = 1.0
"""Seconds between two looks at Nix's database. A look takes a millisecond."""


async def watch(
    queue: PushQueue,
    to: Sequence[str],
    nix_store: str | None,
    store_dir: str,
    give_up_after: str | None,
    wanted: Filter,
    *,
    skip_upstream: bool,
    everything: bool,
    once: bool,
) -> None:
    """Queue what is new in Nix's store, and push it: once, or until a signal ends the program.

    Raises:
        InvalidError: the store is not on this machine, or has no database.
    """
    nix = NixStore.at(nix_store, store_dir)
    targets = chosen_targets(to, nix_store, store_dir, skip_upstream=skip_upstream)
    paths = NewPaths(NixDatabase(nix.database), queue, targets, wanted, say)
    await asyncio.to_thread(paths.begin, everything=everything)
    if once:
        await asyncio.to_thread(paths.look)
        await drain(queue, give_up_after)
        return

    async def work() -> None:
        await asyncio.gather(serve(queue, give_up_after), _queue_what_comes(paths))

    await until_signal(work())


async def _queue_what_comes(paths: NewPaths) -> None:
    trouble = ""
    while True:
        try:
            # In a thread: another process may hold the database, and the queue is synced.
            await asyncio.to_thread(paths.look)
            trouble = ""
        except (OSError, StoreError) as error:  # such as a full disk, or a store that is moved
            if str(error) != trouble:
                say(f"{error}; it is tried again")
            trouble = str(error)
        await asyncio.sleep(LOOK)

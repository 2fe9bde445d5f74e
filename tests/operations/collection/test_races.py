"""Some pin, some delete, some put, and some remove what is unused: a path that was pinned is there, with all that it needs."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.operations.collection.paths import Collected, paths
from tvix_store.backends.local import open_store
from tvix_store.config import verified
from tvix_store.errors import ConflictError, IncompleteError, NotFoundError
from tvix_store.operations.collection.delete import Referrers, delete_paths
from tvix_store.operations.collection.pins import pin
from tvix_store.operations.collection.unused import last_uses, remove_paths, remove_unused
from tvix_store.services.store import Store
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.contracts.removal import hash_of, put

NAMES = [f"path-{number}" for number in range(12)]
REFERENCES = {name: NAMES[max(at - 2, 0) : at] for at, name in enumerate(NAMES)}


async def missing(store: Store, name: str) -> set[str]:
    """The paths that are not there of the closure of a path."""
    waiting, lacking, seen = [name], set(), set()
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += REFERENCES[each]
            if await store.path_infos.get(hash_of(each)) is None:
                lacking.add(each)
    return lacking


@pytest.mark.parametrize("seed", range(3))
async def test_a_pinned_path_is_there_whatever_others_do(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    counts = dict.fromkeys(("put", "pinned", "refused", "deleted", "removed"), 0)

    async def pause(most: float = 0.003) -> None:
        await asyncio.sleep(generator.random() * most)

    async def puts(store: Store) -> None:
        for _ in range(60):
            try:
                for name in NAMES[: generator.randrange(1, len(NAMES))]:
                    await put(store, name, *REFERENCES[name], requires=True)
                    counts["put"] += 1
            except IncompleteError:
                pass
            await pause()

    async def pinning(collected: Collected, number: int) -> None:
        for _ in range(30):
            name, path_name = f"pin-{number}", generator.choice(NAMES)
            try:
                await pin(collected.store, collected.pins, name, [path(path_name)])
            except NotFoundError:
                counts["refused"] += 1
                await pause()
                continue
            counts["pinned"] += 1
            for _ in range(3):
                assert await missing(collected.store, path_name) == set()
                await pause(0.04)
            await collected.pins.remove(name)

    async def deletes(store: Store) -> None:
        for _ in range(150):
            try:
                mode = generator.choice((Referrers.REFUSE, Referrers.DELETE))
                counts["deleted"] += len(await delete_paths(store, paths(generator.choice(NAMES)), mode))
            except (ConflictError, NotFoundError):
                pass
            await pause()

    async def removes(collected: Collected) -> None:
        for _ in range(200):
            await collected.let_pass(1)
            now = await collected.hours.now()
            if generator.random() < 0.5:
                gone = await remove_unused(collected.store, now=now, keep_for=1, noted_every=1)
            else:
                some = await (await last_uses(collected.store, now=now)).ordered()
                gone = await remove_paths(collected.store, some[:2], now=now)
            counts["removed"] += len(gone)
            await pause()

    # Two that have the store open, as two processes have.
    async with await open_store(tmp_path / "store") as one, await open_store(tmp_path / "store") as two:
        first, second = Collected(verified(one)), Collected(verified(two))
        await first.hours.look()
        await asyncio.gather(
            *(puts(each.store) for each in (first, second, first, second)),
            *(pinning(each, number) for number, each in enumerate((first, second, first))),
            *(deletes(each.store) for each in (first, second)),
            removes(second),
        )
        assert min(counts.values()) > 5, counts
        for name in NAMES:
            if await one.path_infos.get(hash_of(name)) is not None:
                assert await missing(one, name) == set()

"""A process that collects is killed at every step. Nothing is lost, and the next run goes on: all space comes back in the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.collected_history import Known, fill, has_remains, looked_at, own, small_packs, small_steps
from tests.backends.local.store_files import make_index_anew
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage, packs
from tvix_store.backends.local import open_store
from tvix_store.backends.local.checkpointer import Checkpointer
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.committer import Committer
from tvix_store.backends.local.pack_writer import PackWriter

EVERY = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_KILL_EVERY", "24"))
"""Of so many steps, the process is killed at one."""
MOST = 1000
"""Steps of a run, and more."""


@pytest.fixture(autouse=True)
def steps() -> Iterator[None]:
    with small_steps():
        yield


async def prepared(directory: Path, known: Known, *, is_published: bool) -> None:
    """A store with much to collect: some of it is condemned, and some is needed again."""
    async with await small_packs(directory) as store:
        await fill(store, known)
        if is_published:
            await collect_garbage(store, GRACE, later=-2 * GRACE)
            await known.put(store, "goes-1", own("goes 1", 60_000))
            await store.path_infos.put(await known.put(store, "new", own("goes 2", 60_000)))


def collects_and_dies(directory: Path, at: int) -> int:
    """Collect in a process of its own, and kill it at a step; its exit status."""
    child = os.fork()
    if not child:
        try:
            asyncio.run(_collect(directory, at))
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


async def _collect(directory: Path, at: int) -> None:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def between(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            step()
            result = call(*arguments, **options)
            step()
            return result

        return stepping

    async with await open_store(directory) as store:
        for owner, name in ((Watch, "tell"), (PackWriter, "append"), (Committer, "_name"), (Checkpointer, "make"), (os, "unlink")):
            setattr(owner, name, between(getattr(owner, name)))
        await collect_garbage(store)
    os._exit(0)


@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("is_published", [False, True])
def test_a_collection_is_killed_at_every_step(tmp_path: Path, is_published: bool) -> None:
    whole, known = tmp_path / "whole", Known()
    asyncio.run(prepared(whole, known, is_published=is_published))

    async def collected(directory: Path) -> int:
        async with await open_store(directory) as store:
            await collect_garbage(store)
            assert not has_remains(store)
            known.look(engine_of(store))
        return sum(packs(directory).values())

    shutil.copytree(whole, tmp_path / "all")
    least = asyncio.run(collected(tmp_path / "all"))
    assert least < 0.75 * sum(packs(whole).values())
    kills = 0
    for at in range(1, MOST, EVERY):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        status = collects_and_dies(copy, at)
        if status == 0:
            break
        assert status == signal.SIGKILL
        kills += 1
        looked_at(copy, known)
        if kills % 5 == 0:
            make_index_anew(copy)
            looked_at(copy, known)
        # What was rewritten just before may be just not worth it any more.
        assert asyncio.run(collected(copy)) < least + 20_000
        make_index_anew(copy)
        looked_at(copy, known)
        shutil.rmtree(copy)
    assert status == 0
    print(f"killed {kills} times: 0 of {len(known.there)} paths lost each time, and all space was given back")

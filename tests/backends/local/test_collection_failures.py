"""The disk is full or fails, or no descriptors are left, at every call of a collection: nothing is lost, and the next run works."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.backends.local.collected_history import Known, fill, looked_at, own, small_packs, small_steps
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage, is_whole
from tests.small_disk import mounted
from tvix_store.backends.local import open_store
from tvix_store.backends.local.durability import Durability
from tvix_store.config import verified
from tvix_store.errors import ExhaustedError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise

EVERY = int(os.environ.get("TVIX_STORE_TEST_COLLECTION_FAIL_EVERY", "60"))
"""Of so many calls, one fails."""
MOST = 5000

WRITES = ("pwritev", "pwrite", "write", "link", "rename", "ftruncate", "unlink")
READS = ("pread", "preadv", "open", "stat")


@pytest.fixture(autouse=True)
def steps() -> Iterator[None]:
    with small_steps():
        yield


class Failing:
    """Lets calls of the system fail that have to do with a directory, from the one with the number `at` on, `count` of them."""

    def __init__(self, directory: Path, names: tuple[str, ...], error: int, at: int, count: int) -> None:
        self._directory, self._names, self._error = str(directory), names, error
        self._at, self._end = at, at + count
        self.calls = 0

    def __enter__(self) -> Self:
        self._patch = pytest.MonkeyPatch()
        for name in self._names:
            self._patch.setattr(os, name, self._instead(getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _instead(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(where: Any, *arguments: Any, **options: Any) -> Any:
            if self._concerns(where):
                self.calls += 1
                if self._at <= self.calls < self._end:
                    raise OSError(self._error, os.strerror(self._error), *([str(where)] if not isinstance(where, int) else []))
            return call(where, *arguments, **options)

        return instead

    def _concerns(self, where: Any) -> bool:
        try:
            path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else os.fspath(where)
        except (OSError, TypeError):
            return False
        return path.startswith(self._directory) if isinstance(path, str) else False


async def prepared(directory: Path, known: Known) -> None:
    async with await small_packs(directory) as store:
        await fill(store, known)
        await collect_garbage(store, GRACE, later=-2 * GRACE)
        await store.path_infos.put(await known.put(store, "new", own("goes 2", 60_000)))


@pytest.mark.timeout(36_000)
@pytest.mark.parametrize(
    ("names", "error"),
    [(WRITES, errno.ENOSPC), (READS, errno.EIO), (("open",), errno.EMFILE), (WRITES, errno.EIO)],
    ids=["disk full", "reads fail", "no descriptors", "writes fail"],
)
@pytest.mark.parametrize("count", [1, MOST], ids=["once", "from then on"])
def test_calls_fail_during_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], error: int, count: int
) -> None:
    for name in ("_fdatasync", "_fsync"):
        monkeypatch.setattr(Durability, name, lambda durability, fd: None)
    monkeypatch.setattr(Durability, "_sync_database", lambda durability, path, sync: None)
    whole, known = tmp_path / "whole", Known()
    asyncio.run(prepared(whole, known))

    async def run(directory: Path, failing: Failing) -> bool:
        """Whether all calls that there are were passed."""
        acknowledged: PathInfoOrNone = None
        async with await open_store(directory) as store:
            with failing:
                try:
                    await collect_garbage(store)
                except StoreError:
                    pass
                else:
                    assert count == 1 or failing.calls < failing._at or names is not WRITES
                acknowledged = await put_or_not(store, "meanwhile")
            for info in known.there.values():
                assert await is_whole(store, info)
            if acknowledged:
                assert Digest.of(await collect(store.blobs.read(acknowledged))) == acknowledged
            known.look(engine_of(store))
        looked_at(directory, known)
        async with await open_store(directory) as store:
            await collect_garbage(store, later=10)
            assert await put_or_not(store, "afterwards")
            known.look(engine_of(store))
        looked_at(directory, known)
        return failing.calls < failing._at

    tries = 0
    for at in range(1, MOST, EVERY):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        is_over = asyncio.run(run(copy, Failing(copy, names, error, at, count)))
        shutil.rmtree(copy)
        tries += 1
        if is_over:
            break
    assert is_over
    print(f"{os.strerror(error)} at {tries} calls: 0 of {len(known.there)} paths lost, 0 false acknowledgements")


PathInfoOrNone = Digest | None


async def put_or_not(store: Store, seed: str) -> Digest | None:
    """Put a blob; None where that was refused."""
    try:
        [digest] = await verified(store).blobs.put_many([noise(9000, seed)])
    except StoreError:
        return None
    return digest


@pytest.mark.timeout(36_000)
async def test_a_collection_on_a_full_disk(tmp_path: Path) -> None:
    """Whatever room there is: the run works, or says that there is not enough. With more room, it works."""
    refused = 0
    for room in (0, 1, 4, 8, 16, 32, 64, 128, 256):
        with mounted(tmp_path / f"small-{room}", 6) as disk:
            known = Known()
            await prepared(disk / "store", known)
            async with await open_store(disk / "store") as store:
                leave_room(disk, 4096 * room)
                try:
                    await collect_garbage(store)
                except ExhaustedError:
                    refused += 1
                known.look(engine_of(store))
                for info in known.there.values():
                    assert await is_whole(store, info)
                (disk / "ballast").unlink()
                await collect_garbage(store, later=10)
                known.look(engine_of(store))
            looked_at(disk / "store", known)
    assert refused > 2
    print(f"{refused} of 9 refused")


def leave_room(disk: Path, size: int) -> None:
    """Fill a disk, but for so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            ballast.truncate(max(ballast.tell() - size, 0))

"""Whatever request fails, or loses its answer: nothing that was acknowledged is lost, and no path is there without its content."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.backends.objectstore.packed.counted_bucket import CountedBucket, no_fault
from tests.backends.objectstore.packed.packed_stores import facts_of, nar_of, open_packed, put_path
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces
from tvix_store.testing.trees import Tree, TreeFile, nar

LARGE = noise(700_000, "large")
TREE: Tree = {b"large": TreeFile(LARGE), b"below": {b"small": TreeFile(b"small")}}
KNOWN = noise(300_000, "known")
PATH = StorePath(noise(20, "tree"), "tree")


async def is_whole(bucket: CountedBucket, tmp_path: Path) -> bool:
    """Whether the path is there, for a new front end. If so, all its content is. What was acknowledged before is there anyway."""
    async with await open_packed(CountedBucket(bucket.store), tmp_path) as store:
        assert await collect(store.blobs.read(Digest.of(KNOWN))) == KNOWN
        info = await store.path_infos.get(PATH.output_hash)
        if info is not None:
            assert await store.nar.calculate(info.node) == facts_of(TREE)
            assert await nar_of(store, info) == nar(TREE)
        return info is not None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_request_of_an_import_may_fail(tmp_path: Path, when: str) -> None:
    for number in count():
        bucket = CountedBucket()
        async with await open_packed(bucket, tmp_path / f"writer {number}", pack_size=1 << 18) as store:
            await store.blobs.put(pieces(KNOWN, 1 << 16))
            bucket.forget()
            failed: list[str] = []

            def fault(request: int, key: str, number: int = number, failed: list[str] = failed) -> str | None:
                if request == number and not failed:
                    failed.append(key)
                    return when
                return None

            bucket.fault = fault
            acknowledged = await put_acknowledged(store)
            bucket.fault = no_fault
        assert await is_whole(bucket, tmp_path / f"reader {number}") or not acknowledged
        async with await open_packed(bucket, tmp_path / f"writer {number}", pack_size=1 << 18) as store:
            assert await put_acknowledged(store)  # once more
        assert await is_whole(bucket, tmp_path / f"another reader {number}")
        if not failed:
            assert acknowledged
            assert number > 4
            return


async def put_acknowledged(store: Store) -> bool:
    try:
        await put_path(store, TREE)
    except UnavailableError:
        return False
    return True


async def test_a_stage_is_accepted_only_with_all_its_packs(tmp_path: Path) -> None:
    """Many put at once, while packs are being written."""
    for failing in (1, 2, 5):
        bucket = SlowBucket()
        async with await open_packed(bucket, tmp_path / f"{failing}", pack_size=1 << 16) as store:
            assert store.staging is not None
            stage = store.staging.begin()
            written: list[str] = []

            def fault(request: int, key: str, failing: int = failing, written: list[str] = written) -> str | None:
                written += [key] if key.startswith("data/") else []
                return "before" if key.startswith("data/") and len(written) == failing else None

            bucket.fault = fault
            await asyncio.gather(*(stage.blobs.put_many([noise(40_000, f"{number}")]) for number in range(12)))
            with pytest.raises(UnavailableError):
                await stage.accept()
            await stage.close()
            assert len(written) >= 6
            assert [page async for page in bucket.list("data")] == []  # nothing is left of it


class SlowBucket(CountedBucket):
    """Each request takes 20 ms."""

    async def put(self, key: str, data: bytes | memoryview) -> None:
        await asyncio.sleep(0.02)
        await super().put(key, data)


async def test_an_import_may_be_cancelled_at_any_request(tmp_path: Path) -> None:
    for number in count():
        bucket = CountedBucket()
        async with await open_packed(bucket, tmp_path / f"writer {number}", pack_size=1 << 18) as store:
            await store.blobs.put(pieces(KNOWN, 1 << 16))
            bucket.forget()
            importing = asyncio.create_task(put_path(store, TREE))

            def fault(request: int, key: str, number: int = number, importing: asyncio.Task[object] = importing) -> None:
                if request == number:
                    importing.cancel()

            bucket.fault = fault
            with suppress(asyncio.CancelledError):
                await importing
        await is_whole(bucket, tmp_path / f"reader {number}")
        if not importing.cancelled():
            return


async def test_a_direct_put_whose_request_fails_says_so_and_may_come_again(tmp_path: Path) -> None:
    bucket = CountedBucket()
    contents = [b"before", b"after"]
    async with await open_packed(bucket, tmp_path / "view") as store:
        for content in contents:
            bucket.fault = lambda number, key, when=content: when.decode() if key.startswith("commits/") else None  # type: ignore[misc]
            with pytest.raises(UnavailableError):
                await store.blobs.put_many([content])
            bucket.fault = no_fault
            assert await store.blobs.put_many([content]) == [Digest.of(content)]
    async with await open_packed(CountedBucket(bucket.store), tmp_path / "reader") as store:
        assert await store.blobs.get_many(list(map(Digest.of, contents))) == contents


async def test_while_the_bucket_does_not_answer_nothing_counts_as_missing(tmp_path: Path) -> None:
    bucket = CountedBucket(fault=lambda number, key: "before")
    async with await open_packed(bucket, tmp_path / "view") as store:
        with pytest.raises(UnavailableError):
            await store.blobs.missing([Digest.of(b"one")])
        with pytest.raises(StoreError):
            await collect(store.blobs.read(Digest.of(b"one")))

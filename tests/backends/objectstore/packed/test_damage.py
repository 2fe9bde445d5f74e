"""Damaged and lost objects of a packed bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import nar_of, open_packed, put_path
from tvix_store.errors import CorruptError, NotFoundError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces
from tvix_store.testing.trees import Tree, TreeFile, nar

LARGE = noise(900_000, "large")
TREE: Tree = {b"large": TreeFile(LARGE), b"small": TreeFile(b"small " * 100)}


def flipped(data: bytes) -> bytes:
    """Every 50,000th byte is another one: that hits every chunk, and no footer."""
    damaged = bytearray(data)
    for at in range(1000, len(damaged) - 2000, 50_000):
        damaged[at] ^= 0x40
    return bytes(damaged)


async def change(bucket: CountedBucket, folder: str, by: Callable[[bytes], bytes] | None) -> None:
    """Change all objects of a folder; without `by`, delete them."""
    keys = [listed.key async for page in bucket.list(folder) for listed in page]
    for key in keys:
        found = await bucket.get(key)
        assert found is not None
        await (bucket.delete([key]) if by is None else bucket.put(key, by(found.data)))


async def put_again(store: Store) -> None:
    assert await store.blobs.missing([Digest.of(LARGE)]) == {Digest.of(LARGE)}
    assert await store.blobs.put(pieces(LARGE, 100_000)) == Digest.of(LARGE)
    assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE


@pytest.mark.parametrize(
    "damage", [flipped, lambda data: data[:2000], lambda data: b"", None], ids=["bits", "cut", "empty", "gone"]
)
async def test_damage_is_an_error_and_is_mended_by_the_next_put(tmp_path: Path, damage: Callable[[bytes], bytes] | None) -> None:
    bucket = CountedBucket()
    async with (
        await open_packed(bucket, tmp_path / "one") as one,
        await open_packed(CountedBucket(bucket.store), tmp_path / "two") as two,
    ):
        await one.blobs.put(pieces(LARGE, 100_000))
        assert await collect(two.blobs.read(Digest.of(LARGE))) == LARGE
        epoch = await one.epoch()
        await change(bucket, "commits", damage)
        with pytest.raises(CorruptError) as caught:
            await collect(one.blobs.read(Digest.of(LARGE)))
        assert "counted/commits/" in str(caught.value)
        assert await one.epoch() != epoch
        await put_again(one)
        # The other one finds what was put again as it finds the damage.
        assert await collect(two.blobs.read(Digest.of(LARGE))) == LARGE


async def test_a_damaged_nar_is_cut_off_and_whole_after_an_import(tmp_path: Path) -> None:
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "one", pack_size=1 << 18) as store:
        info = await put_path(store, TREE)
        await change(bucket, "data", flipped)
    async with await open_packed(CountedBucket(bucket.store), tmp_path / "two", pack_size=1 << 18) as store:
        for _ in range(2):
            with pytest.raises((CorruptError, NotFoundError)):
                await nar_of(store, info)
        with pytest.raises((CorruptError, NotFoundError)):
            await collect(store.blobs.read(Digest.of(LARGE)))
        await put_path(store, TREE)
        assert await nar_of(store, info) == nar(TREE)
    async with await open_packed(CountedBucket(bucket.store), tmp_path / "three") as store:
        assert await nar_of(store, info) == nar(TREE)


async def test_a_stage_that_rechecks_stores_damaged_content_again(tmp_path: Path) -> None:
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "one") as store:
        await store.blobs.put(pieces(LARGE, 100_000))
        await change(bucket, "commits", flipped)
        assert store.staging is not None
        for rechecks in (False, True):
            stage = store.staging.begin(rechecks=rechecks)
            await stage.blobs.put(pieces(LARGE, 100_000))
            assert (stage.new_bytes() > 0) == rechecks
            await stage.accept()
            await stage.close()
        assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE


async def test_a_commit_with_a_damaged_footer_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "one") as store:
        await store.blobs.put(pieces(LARGE, 100_000))
    await change(bucket, "commits", lambda data: data[:-10] + bytes(10))
    await bucket.put("commits/something else", b"of somebody else")
    await bucket.put("commits/0000000000ff-00000010-0123456789abcdef", b"")
    async with await open_packed(CountedBucket(bucket.store), tmp_path / "two") as store:
        await put_again(store)
    assert "footer of counted/commits/" in caplog.text


async def test_hints_of_a_tree_that_lead_elsewhere_are_not_believed(tmp_path: Path) -> None:
    """Its chunks have been put anew since, and lie elsewhere."""
    bucket = CountedBucket()
    async with await open_packed(bucket, tmp_path / "one") as store:
        info = await put_path(store, TREE)
        [tree] = [listed.key async for page in bucket.list("trees") for listed in page]
        old = await bucket.get(tree)
        assert old is not None
        await change(bucket, "commits", None)
        with pytest.raises(StoreError):
            await collect(store.blobs.read(Digest.of(LARGE)))
        assert await store.blobs.get_many([Digest.of(b"small " * 100)]) == [None]  # all of the pack was looked at
        await put_path(store, TREE)
    await bucket.put(tree, old.data)
    async with await open_packed(CountedBucket(bucket.store), tmp_path / "two") as store:
        assert await nar_of(store, info) == nar(TREE)

"""How many requests the packed layout takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.objectstore.packed.counted_bucket import CountedBucket
from tests.backends.objectstore.packed.packed_stores import facts_of, files_of, nar_of, open_packed, put_path
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.ingest.import_tree import import_tree
from tvix_store.operations.nars.offer import NarOffers
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.trees.lookup import lookup
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, noise, put_tree, stream
from tvix_store.testing.trees import TreeFile, castore, nar

TREE = {b"bin": files_of(300), b"lib": {b"large": TreeFile(noise(2_000_000, "large")), **files_of(300, "lib")}}


@pytest.fixture
def bucket() -> CountedBucket:
    return CountedBucket()


async def put(bucket: CountedBucket, tmp_path: Path) -> bytes:
    """Put TREE, by a front end that is gone. The output hash."""
    async with await open_packed(bucket, tmp_path / "writer") as store:
        return (await put_path(store, TREE)).store_path.output_hash


def cold(bucket: CountedBucket) -> CountedBucket:
    """The same objects, for a front end that knows nothing."""
    return CountedBucket(bucket.store)


async def test_an_import_of_many_files_is_few_requests(bucket: CountedBucket, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "tree" / f"{number % 20}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / f"{number % 20}" / f"{number}").write_bytes(noise(200, f"{number}"))
    async with await open_packed(bucket, tmp_path / "view") as store:
        await import_tree(store, tmp_path / "tree", name="tree")
        assert bucket.counts == {"list commits": 1, "commits": 1, "trees": 1, "path_infos": 1}
        bucket.forget()
        await import_tree(store, tmp_path / "tree", name="again")  # nothing of it is new
        assert bucket.counts == {"trees": 1, "path_infos": 1}


async def test_full_packs_are_one_request_each(bucket: CountedBucket, tmp_path: Path) -> None:
    async with await open_packed(bucket, tmp_path / "view", pack_size=1 << 20) as store:
        info = await put_path(store, TREE)
        assert bucket.counts == {"list commits": 1, "data": 1, "commits": 1, "trees": 1, "path_infos": 1}
        assert await nar_of(store, info) == nar(TREE)


async def test_a_cold_nar_is_few_ranges(bucket: CountedBucket, tmp_path: Path) -> None:
    output_hash = await put(bucket, tmp_path)
    for how in ("planned", "rendered"):
        reader = cold(bucket)
        async with await open_packed(reader, tmp_path / how) as store:
            info = await store.path_infos.get(output_hash)
            assert info is not None
            rendered = render_nar(store.blobs, store.directories.tree(info.node))
            assert await (nar_of(store, info) if how == "planned" else collect(rendered)) == nar(TREE)
        assert reader.counts == {"path_infos": 1, "trees": 1, "commits": 1}, how


async def test_a_cold_narinfo_is_one_request(bucket: CountedBucket, tmp_path: Path) -> None:
    output_hash = await put(bucket, tmp_path)
    reader = cold(bucket)
    async with await open_packed(reader, tmp_path / "reader") as store:
        info = await store.path_infos.get(output_hash)
        assert info is not None
        offer = await NarOffers(store, PlannedNars.of(store)).offer(info, "none")
        assert offer.file.size == info.nar.size
        assert reader.counts == {"path_infos": 1}
        assert await store.path_infos.put(info) == info  # not calculated, this time
    async with await open_packed(cold(bucket), tmp_path / "another") as store:
        assert await store.path_infos.get(output_hash) == info


async def test_facts_that_nobody_has_calculated_are_calculated(bucket: CountedBucket, tmp_path: Path) -> None:
    async with await open_packed(bucket, tmp_path / "writer") as store:
        node = await put_tree(store, TREE)
        wrong = NarFacts(7, bytes(32))
        info = await store.path_infos.put(PathInfo(StorePath(bytes(20), "wrong"), node, wrong))
    async with await open_packed(cold(bucket), tmp_path / "reader") as store:
        assert await store.path_infos.get(info.store_path.output_hash) == info
        assert await store.nar.calculate(node) == facts_of(TREE)


async def test_a_tree_that_was_put_part_by_part_gets_its_object_when_it_is_read(bucket: CountedBucket, tmp_path: Path) -> None:
    content = castore({b"many": files_of(200), b"large": TreeFile(noise(2_000_000, "large"))})
    async with await open_packed(bucket, tmp_path / "writer") as store:
        assert store.granular is not None
        for blob in content.blobs.values():
            await store.blobs.put(stream([blob]))
        await store.granular.put_directories(content.directories)
        assert "trees" not in bucket.counts
        facts = await store.nar.calculate(content.root)  # as before its path info is put
    assert bucket.counts["trees"] == 2  # asked for, and written
    reader = cold(bucket)
    async with await open_packed(reader, tmp_path / "reader") as store:
        rendered = await collect(render_nar(store.blobs, store.directories.tree(content.root)))
        assert len(rendered) == facts.size
        assert "list commits" not in reader.counts


async def test_a_cold_file_is_three_requests(bucket: CountedBucket, tmp_path: Path) -> None:
    output_hash = await put(bucket, tmp_path)
    for name, size in ((b"bin/00007", 107), (b"lib/large", 2_000_000)):
        reader = cold(bucket)
        async with await open_packed(reader, tmp_path / name.hex()) as store:
            info = await store.path_infos.get(output_hash)
            assert info is not None
            node = await lookup(store.directories.tree(info.node), name)
            assert isinstance(node, FileNode)
            assert len(await collect(store.blobs.read(node.digest))) == size
        assert reader.counts["path_infos"] == reader.counts["trees"] == 1
        assert reader.counts["commits"] == (1 if size < 1000 else 3)  # a large blob begins with a small range
        assert len(reader.counts) == 3


async def test_a_cold_path_that_is_a_file_is_three_requests(bucket: CountedBucket, tmp_path: Path) -> None:
    async with await open_packed(bucket, tmp_path / "writer") as store:
        info = await put_path(store, TreeFile(b"a store path of its own"))
    reader = cold(bucket)
    async with await open_packed(reader, tmp_path / "reader") as store:
        assert await store.path_infos.get(info.store_path.output_hash) == info
        assert await collect(store.blobs.read(Digest.of(b"a store path of its own"))) == b"a store path of its own"
    assert reader.counts == {"path_infos": 1, "trees": 1, "commits": 1}


async def test_existence_of_many_digests_is_a_listing_and_what_is_new(bucket: CountedBucket, tmp_path: Path) -> None:
    await put(bucket, tmp_path)
    reader = cold(bucket)
    digests = [Digest.of(noise(100 + number % 400, f" {number}")) for number in range(300)]
    async with await open_packed(reader, tmp_path / "reader") as store:
        unknown = [missing(f"{number}") for number in range(1000)]
        assert await store.blobs.missing([*digests, *unknown]) == set(unknown)
        assert reader.counts == {"list commits": 1, "commits": 1}
        reader.forget()
        for _ in range(10):
            assert await store.blobs.missing([*digests, *unknown]) == set(unknown)
        assert not await store.blobs.missing(digests)
        assert reader.counts == {}


async def test_many_small_puts_at_once_share_commits(bucket: CountedBucket, tmp_path: Path) -> None:
    from asyncio import gather

    async with await open_packed(bucket, tmp_path / "view") as store:
        await gather(*(store.blobs.put_many([noise(100, f"{number}")]) for number in range(200)))
    assert bucket.counts["commits"] <= 10


async def test_many_commits_are_merged_for_new_front_ends(bucket: CountedBucket, tmp_path: Path) -> None:
    async with await open_packed(bucket, tmp_path / "writer") as store:
        digests = [(await store.blobs.put_many([noise(100, f"{number}")]))[0] for number in range(70)]
    first, second = cold(bucket), cold(bucket)
    for reader in (first, second):
        async with await open_packed(reader, tmp_path / f"reader {reader is first}") as store:
            assert not await store.blobs.missing(digests)
            assert await store.blobs.get_many(digests) == [noise(100, f"{number}") for number in range(70)]
    assert first.counts["commits"] == 140  # each footer, and then each content
    assert second.counts == {"list commits": 1, "list index": 1, "index": 1, "commits": 70}


@pytest.mark.parametrize("damage", [b"", b"nothing that we know", None])
async def test_a_damaged_merged_index_or_tree_object_is_not_used(
    bucket: CountedBucket, tmp_path: Path, damage: bytes | None
) -> None:
    """They are advice."""
    output_hash = await put(bucket, tmp_path)
    await make_merged_index(bucket, tmp_path)
    for folder in ("trees", "index"):
        async for page in bucket.list(folder):
            for listed in page:
                found = await bucket.get(listed.key)
                assert found is not None
                flipped = bytearray(found.data)
                flipped[len(flipped) // 2] ^= 1
                await bucket.put(listed.key, bytes(flipped) if damage is None else damage)
    async with await open_packed(cold(bucket), tmp_path / "reader") as store:
        info = await store.path_infos.get(output_hash)
        assert info is not None
        assert await nar_of(store, info) == nar(TREE)


async def make_merged_index(bucket: CountedBucket, tmp_path: Path) -> None:
    async with await open_packed(bucket, tmp_path / "many") as store:
        for number in range(70):
            await store.blobs.put_many([noise(100, f"more {number}")])
    async with await open_packed(bucket, tmp_path / "merging") as store:
        await asks_for_all(store)


async def asks_for_all(store: Store) -> None:
    await store.blobs.missing([missing()])

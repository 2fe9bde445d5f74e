"""A bucket into which somebody else writes: that harms what it hits, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blake3 import blake3
from obstore.store import MemoryStore

from tvix_store.backends.objectstore import store_in
from tvix_store.backends.objectstore.bucket import SETTINGS, Bucket
from tvix_store.backends.objectstore.directory_bucket import DirectoryBucket
from tvix_store.backends.objectstore.nars import FOLDER as NARS
from tvix_store.backends.objectstore.path_infos import FOLDER as PATH_INFOS
from tvix_store.backends.objectstore.path_infos import key_of
from tvix_store.backends.objectstore.sealed import HEAD, seal
from tvix_store.backends.objectstore.settings import Settings, load_or_create
from tvix_store.backends.objectstore.snix.keys import blob_key, tree_of_key
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import encode_stat
from tvix_store.protocol.dialects import SNIX
from tvix_store.services.store import Store
from tvix_store.testing.content import put_tree
from tvix_store.testing.contracts.nar import TREE
from tvix_store.testing.contracts.path_infos import stored_file
from tvix_store.testing.contracts.removal import remove


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory")


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return store_in(bucket, Settings(layout="snix"))


@pytest.mark.parametrize("name", ["README", "ab", "AB" * 20, "ab" * 20 + "%20", "ab" * 20 + "/ab", "ab" * 21])
async def test_a_listing_of_paths_passes_over_what_is_none(bucket: Bucket, store: Store, name: str) -> None:
    info = await store.path_infos.put(await stored_file(store, "hello"))
    await bucket.put(f"{PATH_INFOS}/{name}", bytes(200))
    assert [each async for each in store.path_infos.list()] == [info]
    assert await remove(store, "hello") == {"hello"}
    assert [each async for each in store.path_infos.list()] == []


@pytest.mark.parametrize("name", ["README", "zz", "abc", "AB", "70696e3a-/x", "70696e3a--/70", "ff" * 150, "70 696e3a"])
async def test_a_listing_of_records_passes_over_what_is_none(bucket: Bucket, store: Store, name: str) -> None:
    assert store.records is not None
    await store.records.put({b"pin:a": b"1", b"z": b"2"})
    await bucket.put(f"records/{name}", bytes(200))
    assert [each async for each in store.records.list(b"pin:")] == [(b"pin:a", b"1")]
    assert [each async for each in store.records.list()] == [(b"pin:a", b"1"), (b"z", b"2")]


async def test_an_unknown_state_is_damage(bucket: Bucket, store: Store) -> None:
    info = await store.path_infos.put(await stored_file(store, "hello"))
    key = key_of(info.store_path.output_hash)
    checksum = blake3(b"\0".join((key.encode(), b"z", b""))).digest(16)
    await bucket.put(key, b"tvs1z" + bytes(16) + checksum)
    with pytest.raises(CorruptError, match="unknown state"):
        await store.path_infos.get(info.store_path.output_hash)


async def test_damaged_facts_of_a_nar_are_calculated_again(bucket: Bucket, store: Store) -> None:
    node = await put_tree(store, TREE)
    facts = await store.nar.calculate(node)
    [key] = [each.key async for page in bucket.list(NARS) for each in page]
    for damage in (b"garbage", seal(key, b"short")):
        await bucket.put(key, damage)
        assert await store_in(bucket, Settings(layout="snix")).nar.calculate(node) == facts
        found = await bucket.get(key)
        assert found is not None
        assert len(found.data) == HEAD + 40


async def test_a_blob_that_is_too_large_to_be_one_is_damage(bucket: Bucket, store: Store) -> None:
    digest = Digest.of(b"blob")
    await bucket.put(blob_key(digest), encode_stat(SNIX, [(Digest.of(b"chunk"), 2**62)] * 3))
    with pytest.raises(CorruptError, match="more bytes"):
        await store.blobs.stat(digest)


async def test_a_pointer_to_no_tree_is_damage(bucket: Bucket, store: Store) -> None:
    digest = Digest.of(b"directory")
    await bucket.put(tree_of_key(digest), b"short")
    with pytest.raises(CorruptError):
        await store.directories.get(digest)


@pytest.mark.parametrize("said", [b"[" * 60_000, b"[]", b"\xff"])
async def test_settings_that_are_none_are_refused(bucket: Bucket, said: bytes) -> None:
    await bucket.put(SETTINGS, said)
    with pytest.raises(CorruptError):
        await load_or_create(bucket, bucket, {}, create=False)


@pytest.mark.parametrize("is_file", [False, True])
async def test_a_directory_that_is_gone_is_unavailable(tmp_path: Path, is_file: bool) -> None:
    directory = tmp_path / "bucket"
    directory.mkdir()
    bucket = DirectoryBucket(directory, "files")
    await load_or_create(bucket, bucket, {}, create=True)
    await bucket.check()
    shutil.rmtree(directory)
    if is_file:
        directory.write_text("a file")
    for call in (bucket.put("a/b", b"x"), bucket.create("a/b", b"x"), bucket.sync(), bucket.check()):
        with pytest.raises(UnavailableError, match=r"^files: "):
            await call
    await bucket.delete(["a/b"])

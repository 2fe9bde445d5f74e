"""Damaged, lost and foreign files: what a local store does about them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.backends.local.store_files import checkpoint_of, index_file, let_another_boot_follow, opened_index
from tvix_store.backends.local import chunk_lists, open_index, open_store
from tvix_store.backends.local.checkpoint import newest_meta
from tvix_store.backends.local.pack_scan import PackScan
from tvix_store.backends.local.packs import PREFIX_SIZE, Place
from tvix_store.backends.local.progress import Progress
from tvix_store.backends.local.records import HEADER_SIZE, MAGIC, path_info_record
from tvix_store.backends.local.settings import FORMAT
from tvix_store.chunking import cut
from tvix_store.errors import CorruptError, InvalidError, NoStoreError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.blobs import Chunk
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

TEXT = b"a text that compresses well, " * 2000
LARGE = noise(3_000_000, "large")
PATH = StorePath(b"o" * 20, "path")


async def fill(store: Store) -> Node:
    text, small = await store.blobs.put_many([TEXT, b"small"])
    large = await store.blobs.put(stream([LARGE]))
    inner = Directory({b"small": FileNode(small, 5)})
    outer = Directory({b"inner": inner.node(), b"large": FileNode(large, len(LARGE)), b"text": FileNode(text, len(TEXT))})

    async def graph() -> AsyncIterator[Directory]:
        yield inner
        yield outer

    node = DirectoryNode(await store.directories.put(graph()), outer.size())
    nar = NarFacts(1234, b"n" * 32)
    assert store.records is not None
    await store.records.put({b"a": b"first", b"b": b"only"})
    await store.path_infos.put(PathInfo(PATH, node, nar, signatures=(Signature("first", b"1" * 64),)))
    await store.records.put({b"a": b"second", b"c": b"not yet"})
    await store.records.put({b"c": b"last"}, durable=False)
    await store.path_infos.put(PathInfo(PATH, node, nar, signatures=(Signature("second", b"2" * 64),)))
    return node


async def check_filled(store: Store) -> None:
    info = await store.path_infos.get(PATH.output_hash)
    assert info is not None
    assert [signature.name for signature in info.signatures] == ["first", "second"]
    outer, inner = [directory async for directory in store.directories.get_recursive(info.node.digest)]  # type: ignore[union-attr]
    assert await collect(store.blobs.read(outer.entries[b"large"].digest)) == LARGE  # type: ignore[union-attr]
    assert await collect(store.blobs.read(outer.entries[b"large"].digest, 1_000_000, 1_000_100)) == LARGE[1_000_000:1_000_100]  # type: ignore[union-attr]
    assert await collect(store.blobs.read(outer.entries[b"text"].digest)) == TEXT  # type: ignore[union-attr]
    assert await collect(store.blobs.read(inner.entries[b"small"].digest)) == b"small"  # type: ignore[union-attr]
    assert store.records is not None
    assert [await store.records.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"second", b"only", b"last", None]
    assert store.statistics is not None
    stats = await store.statistics.stats()
    assert (stats.path_infos, stats.directories, stats.chunked_blobs) == (1, 2, 1)
    assert stats.unique_bytes == len(TEXT) + len(LARGE) + 5


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await fill(store)
        await check_filled(store)
    return directory


async def test_a_lost_index_is_made_anew_from_the_packs(filled: Path) -> None:
    shutil.rmtree(filled / "index")
    async with await open_store(filled) as store:
        await check_filled(store)
        await fill(store)  # and it goes on
        await check_filled(store)


async def test_an_index_that_a_power_cut_may_have_torn_is_made_anew(filled: Path) -> None:
    let_another_boot_follow(filled)
    os.truncate(index_file(filled), 5000)
    async with await open_store(filled) as store:
        await check_filled(store)
    assert checkpoint_of(filled).is_of_this_boot


async def test_a_store_at_rest_is_at_its_checkpoint(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store)
        for _ in range(50):
            await asyncio.sleep(0.1)
            newest = newest_meta(index_file(tmp_path))
            if newest == checkpoint_of(tmp_path).meta:
                break
        assert newest == checkpoint_of(tmp_path).meta


async def test_a_record_without_its_payload_at_the_end_of_a_pack_is_passed_over(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    lost = noise(50_000, "lost")
    async with await open_store(filled) as store:
        await store.blobs.put_many([lost])
    content = pack.read_bytes()
    pack.write_bytes(content[:-40_000] + bytes(40_000))  # as a file system may leave it
    shutil.rmtree(filled / "index")
    async with await open_store(filled) as store:
        await check_filled(store)
        assert await store.blobs.missing([Digest.of(lost)]) == {Digest.of(lost)}
        await store.blobs.put_many([lost])
        assert await store.blobs.get_many([Digest.of(lost)]) == [lost]


async def test_behind_a_damaged_record_the_others_are_found(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    assert content[PREFIX_SIZE : PREFIX_SIZE + 4] == MAGIC
    content[PREFIX_SIZE + 10] ^= 1  # in the header of the first record
    pack.write_bytes(content)
    shutil.rmtree(filled / "index")
    async with await open_store(filled) as store:
        info = await store.path_infos.get(PATH.output_hash)
        assert info is not None
        assert (await store.statistics.stats()).directories == 2  # type: ignore[union-attr]
        await fill(store)  # what was lost can be put again
        await check_filled(store)


async def test_a_record_planted_in_a_file_is_not_taken_for_one(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    stolen = pack.read_bytes()[PREFIX_SIZE:]  # records that another pack wrote
    other = filled.with_name("other")
    planted = noise(700_000, "before") + stolen[-2_000:] + noise(700_000, "behind")  # so large that it is not compressed
    async with await open_store(other) as store:
        await store.blobs.put(stream([planted]))
        await store.blobs.put_many([b"after"])
    [pack] = (other / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    assert stolen[-2_000:] in content
    with closing(PackScan(pack, 1, PREFIX_SIZE)) as scan:
        for entry in scan.entries(Progress("", 1)):
            if entry.length > 5:  # so that the search for the next entry goes through the contents
                content[entry.offset - HEADER_SIZE + 10] ^= 1
    pack.write_bytes(content)
    shutil.rmtree(other / "index")
    async with await open_store(other) as store:
        assert [info async for info in store.path_infos.list()] == []
        assert await store.blobs.get_many([Digest.of(b"after")]) == [b"after"]


async def test_a_flipped_bit_is_an_error_and_nothing_of_it_is_given_out(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    at = content.index(LARGE[1_500_000:1_500_064])
    content[at] ^= 0x10
    pack.write_bytes(content)
    async with await open_store(filled) as store:
        received = bytearray()

        async def read() -> None:
            async for piece in store.blobs.read(Digest.of(LARGE)):
                received.extend(piece)

        # What lies before the damage can be read, until it is found, and the blob counts as missing.
        assert await collect(store.blobs.read(Digest.of(LARGE), 0, 1000)) == LARGE[:1000]
        with pytest.raises(CorruptError, match="damaged"):
            await read()
        assert LARGE.startswith(bytes(received))
        assert len(received) < 1_500_000


async def test_a_flipped_bit_in_a_directory_is_an_error(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    inner = Directory({b"small": FileNode(Digest.of(b"small"), 5)})
    content[content.index(inner.encoded) + 9] ^= 1
    pack.write_bytes(content)
    async with await open_store(filled) as store:
        with pytest.raises(CorruptError):
            await store.directories.get(inner.digest)


async def test_what_was_in_a_missing_pack_is_missing_and_health_names_the_pack(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    pack.unlink()
    async with await open_store(filled) as store:
        with pytest.raises(NotFoundError):
            await collect(store.blobs.read(Digest.of(LARGE)))
        with pytest.raises(UnavailableError, match=pack.name):
            await store.check()


async def test_a_read_of_what_was_never_put_is_not_found(filled: Path) -> None:
    async with await open_store(filled) as store:
        with pytest.raises(NotFoundError):
            await collect(store.blobs.read(Digest.of(b"never")))


async def test_an_unknown_format_is_refused_by_number(filled: Path) -> None:
    settings = filled / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "format": 99}))
    with pytest.raises(InvalidError, match=rf"format 99.*reads format {FORMAT}"):
        await open_store(filled)


async def test_settings_that_are_no_settings_are_damage(filled: Path) -> None:
    (filled / "settings.json").write_text("[]")
    with pytest.raises(CorruptError, match="settings"):
        await open_store(filled)


async def test_a_directory_with_other_things_in_it_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NoStoreError, match="neither empty nor a store"):
        await open_store(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


async def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidError, match="cannot be a store's directory"):
        await open_store(tmp_path / "file")


async def test_settings_are_kept_and_others_refused(tmp_path: Path) -> None:
    async with await open_store(tmp_path, chunk_average=65536, size_rule=SizeRule.SNIX) as store:
        assert store.size_rule is SizeRule.SNIX
    async with await open_store(tmp_path) as store:
        assert store.size_rule is SizeRule.SNIX
    with pytest.raises(InvalidError, match="chunk_average=65536, not 131072"):
        await open_store(tmp_path, chunk_average=131072)
    with pytest.raises(InvalidError, match="chunk_average"):
        await open_store(tmp_path / "new", chunk_average=3)


def test_a_header_has_the_size_that_the_format_says() -> None:
    assert HEADER_SIZE == 56


async def test_a_blob_that_lost_a_chunk_in_a_power_cut_is_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    async with await open_store(directory) as store:
        await store.blobs.put(stream([LARGE]))
    [pack] = (directory / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    at = content.index(LARGE[1_500_000:1_500_064])
    content[at : at + 4096] = bytes(4096)  # a page that did not reach the disk
    pack.write_bytes(content)
    shutil.rmtree(directory / "index")
    async with await open_store(directory) as store:
        assert await store.blobs.stat(Digest.of(LARGE)) is None
        assert await store.blobs.missing([Digest.of(LARGE)]) == {Digest.of(LARGE)}
        await store.blobs.put(stream([LARGE]))
        assert await collect(store.blobs.read(Digest.of(LARGE))) == LARGE


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("in_index", [True, False])
async def test_a_lost_part_of_a_chunk_list_is_no_blob_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, in_index: bool
) -> None:
    monkeypatch.setattr(chunk_lists, "SEGMENT_CHUNKS", 10)
    async with await open_store(tmp_path / "store") as store:
        digest = await store.blobs.put(stream([LARGE]))
        size = sum(chunk.size for chunk in (await all_chunks(store, digest)))
        assert size == len(LARGE)
    offsets = lose_segment(tmp_path / "store", digest, lost, in_index=in_index)
    assert len(offsets) == 3
    async with await open_store(tmp_path / "store") as store:
        if not in_index or lost == 0:
            assert await store.blobs.missing([digest]) == {digest}
            return
        for start in (0, offsets[lost]):
            with pytest.raises(CorruptError, match="chunk list"):
                await collect(store.blobs.read(digest, start))
        with pytest.raises(CorruptError, match="chunk list"):
            await all_chunks(store, digest)


async def all_chunks(store: Store, digest: Digest) -> Sequence[Chunk]:
    stat = await store.blobs.stat(digest, chunks=True)
    assert stat is not None
    return stat.chunks


def lose_segment(store: Path, digest: Digest, lost: int, *, in_index: bool) -> list[int]:
    """Lose a segment of a chunk list, in the index or in the pack; the offsets of all of them."""
    index = opened_index(store)
    with index.writing() as txn:
        rows = [(bytes(key), bytes(row)) for key, row in txn.cursor(index.chunk_lists.handle)]
        if in_index:
            txn.delete(rows[lost][0], db=index.chunk_lists.handle)
    index.close()
    if not in_index:
        place = Place.from_bytes(rows[lost][1][8:])
        with (store / f"packs/{place.pack:08x}.pack").open("r+b") as pack:
            pack.seek(place.offset - HEADER_SIZE)
            pack.write(bytes(HEADER_SIZE + place.stored))
        shutil.rmtree(store / "index")
    return [int.from_bytes(key[32:], "big") for key, _ in rows]


async def test_a_damaged_chunk_list_is_an_error(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    first_chunk = Digest.of(cut(LARGE)[0])
    in_list = content.index(first_chunk.raw, content.index(first_chunk.raw) + 32)  # behind its own record
    content[in_list + 32] ^= 1  # its size
    pack.write_bytes(content)
    async with await open_store(filled) as store:
        with pytest.raises(CorruptError, match="damaged"):
            await collect(store.blobs.read(Digest.of(LARGE)))


async def test_a_pack_with_damaged_first_bytes_is_left_alone(filled: Path) -> None:
    [pack] = (filled / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[3] ^= 1
    pack.write_bytes(content)
    shutil.rmtree(filled / "index")
    async with await open_store(filled) as store:
        await store.blobs.put_many([b"goes on"])
        assert await store.blobs.get_many([Digest.of(b"goes on")]) == [b"goes on"]
    assert pack.read_bytes() == content
    content[3] ^= 1
    pack.write_bytes(content)  # repaired by hand
    shutil.rmtree(filled / "index")
    async with await open_store(filled) as store:
        await check_filled_and_more(store)


async def check_filled_and_more(store: Store) -> None:
    assert await store.path_infos.get(PATH.output_hash) is not None
    assert await store.blobs.get_many([Digest.of(b"goes on"), Digest.of(TEXT)]) == [b"goes on", TEXT]


async def test_an_index_that_lmdb_cannot_read_is_made_anew(filled: Path) -> None:
    index_file(filled).write_bytes(bytes(65536))
    async with await open_store(filled) as store:
        await check_filled(store)


async def test_a_store_that_is_closed_is_at_its_checkpoint(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        await fill(store)
        assert newest_meta(index_file(tmp_path / "store")) != checkpoint_of(tmp_path / "store").meta
    assert newest_meta(index_file(tmp_path / "store")) == checkpoint_of(tmp_path / "store").meta


async def test_an_index_removed_under_a_running_user_is_not_waited_for_for_ever(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_index, "_TRIES", 3)
    running = os.open(filled / "lock", os.O_RDWR)
    fcntl.flock(running, fcntl.LOCK_SH)
    shutil.rmtree(filled / "index")
    for _ in range(2):  # and the attempt leaves no lock behind
        with pytest.raises(UnavailableError, match="other processes use the store"):
            await open_store(filled)
    os.close(running)
    async with await open_store(filled) as store:
        await check_filled(store)


async def test_signatures_that_share_a_number_are_merged(tmp_path: Path) -> None:
    """A writer that dies between the record of a path info and its commit leaves its sequence number to the next one."""
    directory = tmp_path / "store"
    info = PathInfo(PATH, FileNode(Digest.of(b"x"), 1), NarFacts(1, b"n" * 32))
    unacknowledged, acknowledged = (info.with_signatures([Signature(name, name.encode() * 64)]) for name in "ab")
    async with await open_store(directory) as store:
        await store.path_infos.put(acknowledged)
    [pack] = (directory / "packs").iterdir()
    record = path_info_record(PATH.output_hash, 1, unacknowledged.encoded)
    key = pack.read_bytes()[PREFIX_SIZE - 32 : PREFIX_SIZE]
    other = pack.with_name("00000002.pack")
    other.write_bytes(pack.read_bytes()[:PREFIX_SIZE] + record.header(key) + bytes(record.payload))
    shutil.rmtree(directory / "index")
    async with await open_store(directory) as store:
        found = await store.path_infos.get(PATH.output_hash)
        assert found is not None
        assert {signature.name for signature in found.signatures} == {"a", "b"}


async def test_after_a_failed_sync_nothing_is_acknowledged_until_the_store_was_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "store"
    info = PathInfo(PATH, FileNode(Digest.of(b"x"), 1), NarFacts(1, b"n" * 32))
    store = await open_store(directory)
    await store.blobs.put_many([b"x"])

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(UnavailableError):
            await store.path_infos.put(info)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="opened again"):
            await store.path_infos.put(info)
    with pytest.raises(UnavailableError, match="opened again"):
        await store.check()
    await store.close()
    async with await open_store(directory) as store:
        assert await store.blobs.get_many([Digest.of(b"x")]) == [b"x"]
        await store.path_infos.put(info)
        await store.check()


@pytest.mark.parametrize("where", [20, 2])
async def test_a_damaged_blob_of_a_batch_is_named(tmp_path: Path, where: int) -> None:
    contents = [f"compressible {n} ".encode() * 1000 for n in range(50)]
    async with await open_store(tmp_path / "store") as store:
        digests = await store.blobs.put_many(contents)
    [pack] = (tmp_path / "store" / "packs").iterdir()
    content = bytearray(pack.read_bytes())
    content[content.index(digests[30].raw) + 40 + where] ^= 0xFF  # in the frame behind the header: its content, or its head
    pack.write_bytes(content)
    async with await open_store(tmp_path / "store") as store:
        with pytest.raises(CorruptError, match=digests[30].hex):
            await store.blobs.get_many(digests)
        assert await store.blobs.get_many(digests[:30]) == contents[:30]


async def test_a_disk_that_does_not_give_what_it_has_is_told_by_the_name_of_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_store(tmp_path / "store") as store:
        await fill(store)

        def fails(fd: int, size: int, offset: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "pread", fails)
        with pytest.raises(UnavailableError, match=r"packs/0*1\S*: Input/output error"):
            await store.blobs.get_many([Digest.of(TEXT)])
        monkeypatch.undo()
        assert await store.blobs.get_many([Digest.of(TEXT)]) == [TEXT]

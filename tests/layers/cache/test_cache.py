"""What is peculiar to a cache: what far is asked, what is near, and what happens when one of both fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
import zstandard

from tests.layers.cache.counting import Calls, counting, with_granular
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.chunking import ChunkSizes
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError, UnavailableError
from tvix_store.layers.cache import path_infos
from tvix_store.layers.cache.cached import cached
from tvix_store.layers.cache.disk_near import SMALLEST, DiskNear
from tvix_store.layers.cache.memory_near import MemoryNear
from tvix_store.layers.composing import composed
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, Node, SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.granular.plain import granular_of
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.services.blobs import BlobStat
from tvix_store.services.frames import Frame, StoredFrames
from tvix_store.services.offer import POWERS, Offer
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, diamond, missing, noise, pieces, put_tree, stream
from tvix_store.testing.contracts.path_infos import signature, stored_file
from tvix_store.testing.faults import FaultyBlobs, delaying, failing, flipping
from tvix_store.testing.trees import Tree, TreeFile, nar

T = TypeVar("T")

MIB = 1 << 20
BIG = noise(5 * MIB, "big")


@dataclass
class Cache:
    """A cache, the far store behind it, and what that is asked."""

    store: Store
    far: Store
    near: MemoryNear
    calls: Calls

    async def flush(self) -> None:
        await self.store.blobs._near.flush()  # type: ignore[attr-defined]

    def anew(self, near: MemoryNear | None = None) -> Store:
        """Another cache before the same far store: by default with nothing near."""
        return composed_of(cached(near or MemoryNear(100 * MIB), counting(self.far, self.calls)))

    async def asked_by(self, reading: object) -> Calls:
        """What far is asked by something that is awaited."""
        self.calls.forget()
        await reading  # type: ignore[misc]
        await self.flush()
        return self.calls


def composed_of(offer: Offer) -> Store:
    return composed(offer, offer, offer)


@pytest.fixture(params=["memory", "local"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cache]:
    far = await (open_memory() if request.param == "memory" else open_local(tmp_path / "far"))
    near, calls = MemoryNear(100 * MIB), Calls()
    async with composed_of(cached(near, counting(far, calls))) as store:
        yield Cache(store, far, near, calls)


async def test_content_is_read_from_far_once(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    small = await cache.far.blobs.put_many([b"small %d" % n for n in range(50)])
    for _ in range(3):
        assert await collect(cache.store.blobs.read(digest)) == BIG
        assert await cache.store.blobs.get_many(small) == [b"small %d" % n for n in range(50)]
        assert await collect(cache.store.blobs.read(small[7], 2, 5)) == b"all"
        await cache.flush()
    assert len(cache.calls.read) == len(set(cache.calls.read))
    assert not (await cache.asked_by(collect(cache.store.blobs.read(digest)))).methods


async def test_a_range_fills_the_chunks_that_it_touches(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    stat = await cache.far.blobs.stat(digest, chunks=True)
    assert stat is not None
    ends = [sum(chunk.size for chunk in stat.chunks[: number + 1]) for number in range(len(stat.chunks))]
    assert await collect(cache.store.blobs.read(digest, 2 * MIB, 2 * MIB + 200_000)) == BIG[2 * MIB : 2 * MIB + 200_000]
    touched = [
        chunk.digest for chunk, end in zip(stat.chunks, ends, strict=True) if end > 2 * MIB and end - chunk.size < 2 * MIB + 200_000
    ]
    assert cache.calls.read == touched
    await cache.flush()
    again = await cache.asked_by(collect(cache.store.blobs.read(digest, 2 * MIB + 1000, 2 * MIB + 100_000)))
    assert not again.methods


async def test_readers_of_the_same_chunks_cause_one_read(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    small = await cache.far.blobs.put_many([b"small %d" % n for n in range(50)])
    contents = await asyncio.gather(*(collect(cache.store.blobs.read(digest)) for _ in range(20)))
    assert set(contents) == {BIG}
    await asyncio.gather(*(cache.store.blobs.get_many(small[n : n + 20]) for n in range(30)))
    assert len(cache.calls.read) == len(set(cache.calls.read))


async def test_a_reader_that_goes_away_leaves_the_others_their_read(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    readers = [asyncio.create_task(collect(cache.store.blobs.read(digest))) for _ in range(5)]
    await asyncio.sleep(0.001)
    for each in readers[:3]:
        each.cancel()
    assert await asyncio.gather(*readers[3:]) == [BIG, BIG]


async def test_directories_are_read_from_far_once(cache: Cache) -> None:
    graph = diamond()
    root = await cache.far.directories.put(stream(graph))
    first = [each async for each in cache.store.directories.get_recursive(root)]
    await cache.flush()
    cache.calls.forget()
    assert [each async for each in cache.store.directories.get_recursive(root)] == first
    tree = cache.store.directories.tree(graph[-1].node())
    tree.expect_all()
    assert [await tree.get(each.digest) for each in graph[::-1]] == graph[::-1]
    assert await cache.store.directories.get(graph[0].digest) == graph[0]
    assert await granular_of(cache.store).get_directories([each.digest for each in graph]) == graph
    assert not cache.calls.methods


async def test_of_a_tree_only_what_is_not_near_is_read(cache: Cache) -> None:
    leaves = [Directory({b"link": SymlinkNode(b"%d" % n)}) for n in range(20)]
    root = Directory({b"%d" % n: leaf.node() for n, leaf in enumerate(leaves)})
    await cache.far.directories.put(stream([*leaves, root]))
    for each in (root, *leaves[:10]):
        await cache.store.directories.get(each.digest)
    await cache.flush()
    cache.calls.forget()
    assert {each async for each in cache.store.directories.get_recursive(root.digest)} == {root, *leaves}
    assert set(cache.calls.read) == {leaf.digest for leaf in leaves[10:]}


async def test_what_is_put_is_near(cache: Cache) -> None:
    digest = await cache.store.blobs.put(pieces(BIG[: 2 * MIB], MIB))
    [small] = await cache.store.blobs.put_many([b"small"])
    root = await cache.store.directories.put(stream(diamond()))
    await cache.flush()
    cache.calls.is_away = True
    assert await collect(cache.store.blobs.read(digest)) == BIG[: 2 * MIB]
    assert await cache.store.blobs.get_many([small]) == [b"small"]
    assert len([each async for each in cache.store.directories.get_recursive(root)]) == 4


async def test_of_a_large_blob_that_is_put_the_begin_is_near(cache: Cache) -> None:
    digest = await cache.store.blobs.put(pieces(BIG, 300_000))
    await cache.flush()
    cache.calls.is_away = True
    assert await collect(cache.store.blobs.read(digest, 0, 3 * MIB)) == BIG[: 3 * MIB]
    with pytest.raises(UnavailableError):
        await collect(cache.store.blobs.read(digest))


async def test_what_far_does_not_take_is_not_near(cache: Cache) -> None:
    cache.calls.is_away = True
    with pytest.raises(UnavailableError):
        await cache.store.blobs.put(stream([b"content"]))
    with pytest.raises(UnavailableError):
        await cache.store.blobs.put_many([b"content"])
    with pytest.raises(UnavailableError):
        await cache.store.directories.put(stream(diamond()))
    await cache.flush()
    cache.calls.is_away = False
    assert await cache.store.blobs.get_many([Digest.of(b"content")]) == [None]
    assert await cache.store.blobs.missing([Digest.of(b"content")]) == {Digest.of(b"content")}
    assert await cache.store.directories.get(diamond()[0].digest) is None


async def test_what_is_there_far_tells(cache: Cache) -> None:
    """Far may have collected content that is near. Then nothing is acknowledged that rests on it."""
    node = await put_tree(cache.store, {b"file": TreeFile(b"content"), b"d": {b"other": TreeFile(b"other")}})
    assert isinstance(node, DirectoryNode)
    await cache.flush()
    async with await open_memory() as far:
        emptied = composed_of(cached(cache.near, far))
        assert await emptied.blobs.get_many([Digest.of(b"content")]) == [b"content"]
        assert await emptied.blobs.missing([Digest.of(b"content")]) == {Digest.of(b"content")}
        assert await emptied.blobs.stat(Digest.of(b"content")) is None
        assert emptied.granular is not None
        assert await emptied.granular.missing_directories([node.digest]) == {node.digest}
        with pytest.raises(InvalidError):
            await emptied.granular.put_directories([Directory({b"above": node})])
        with pytest.raises(NotFoundError):
            await emptied.nar.calculate(node)


async def test_while_far_is_away_what_is_near_is_served(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    info = await stored_file(cache.far, "away")
    await cache.far.path_infos.put(info)
    await collect(cache.store.blobs.read(digest))
    assert await cache.store.path_infos.get(info.store_path.output_hash) == info
    stat = await cache.store.blobs.stat(digest, chunks=True)
    await cache.flush()
    cache.calls.is_away = True
    assert await collect(cache.store.blobs.read(digest, 1000)) == BIG[1000:]
    near = await cache.store.blobs.stat(digest, chunks=True)
    assert near is not None
    assert stat is not None
    assert (near.size, list(near.chunks)) == (stat.size, list(stat.chunks))
    assert await cache.store.path_infos.get(info.store_path.output_hash) == info
    with pytest.raises(UnavailableError):
        await collect(cache.store.blobs.read(missing()))
    with pytest.raises(UnavailableError):
        await cache.store.path_infos.get(noise(20, "another"))


@pytest.mark.parametrize("calls", [1, 3, 5])
async def test_far_may_be_cut_in_mid_stream(cache: Cache, calls: int) -> None:
    """The reader is told, and what has come is not read again."""
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    cache.calls.left = calls
    came = bytearray()

    async def read() -> None:
        nonlocal came
        async for piece in cache.store.blobs.read(digest):
            came += piece

    with pytest.raises(UnavailableError, match="away"):
        await read()
    assert BIG.startswith(came)
    await cache.flush()
    there = [Digest(key[1:]) for key in cache.near._values if key.startswith(b"c")]
    cache.calls.left, cache.calls.is_away = None, False
    again = await cache.asked_by(collect(cache.store.blobs.read(digest)))
    assert not set(again.read) & set(there)
    assert await collect(cache.store.blobs.read(digest)) == BIG


@pytest.mark.parametrize("flips", [1, 50])
async def test_damage_that_is_near_is_mended(cache: Cache, flips: int) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    small = await cache.far.blobs.put_many([b"small %d" % n * 100 for n in range(50)])
    graph = diamond()
    root = await cache.far.directories.put(stream(graph))

    async def check() -> None:
        assert await collect(cache.store.blobs.read(digest)) == BIG
        assert await cache.store.blobs.get_many(small) == [b"small %d" % n * 100 for n in range(50)]
        assert {each async for each in cache.store.directories.get_recursive(root)} == set(graph)

    await check()
    await cache.flush()
    chosen = random.Random(flips)
    for key, value in cache.near._values.items():
        damaged = bytearray(value)
        for _ in range(flips if damaged else 0):
            damaged[chosen.randrange(len(damaged))] ^= 1 << chosen.randrange(8)
        cache.near._values[key] = bytes(damaged)
    await check()
    await cache.flush()
    assert cache.calls.methods
    await check()
    assert not (await cache.asked_by(check())).methods


async def test_damage_of_far_is_told_and_not_kept(cache: Cache) -> None:
    digest = await cache.far.blobs.put(pieces(BIG, MIB))

    class Flipped:
        """Gives out chunks with wrong bytes."""

        def __init__(self) -> None:
            self._inner = granular_of(cache.far)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        async def get_chunks(self, chunks: object) -> object:
            return [each._replace(stored=bytes(len(each.stored))) for each in await self._inner.get_chunks(chunks)]  # type: ignore[arg-type]

    far = with_granular(cache.far, Flipped())  # type: ignore[arg-type]
    assert await collect(composed_of(cached(MemoryNear(MIB), far)).blobs.read(digest)) == BIG  # read as blobs

    class Damaged(FaultyBlobs):
        async def read(self, *_: object) -> AsyncIterator[bytes]:
            raise CorruptError("damaged")
            yield b""

        async def get_many(self, digests: object) -> list[bytes | None]:
            raise CorruptError("damaged")

    damaged = far.with_services(blobs=Damaged(far.blobs, flipping()), keep=["granular"])
    near = MemoryNear(MIB)
    store = composed_of(cached(near, damaged))
    with pytest.raises(CorruptError, match="damaged"):
        await collect(store.blobs.read(digest))
    await store.blobs._near.flush()  # type: ignore[attr-defined]
    assert not [key for key in near._values if key.startswith(b"c")]


async def test_a_blob_that_far_has_cut_anew_is_read(cache: Cache) -> None:
    """Its chunks are other ones now."""
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    await collect(cache.store.blobs.read(digest, 0, 10))
    await cache.flush()
    async with await open_memory(sizes=ChunkSizes.of_average(32 << 10)) as other:
        await other.blobs.put(pieces(BIG, MIB))
        assert await collect(composed_of(cached(cache.near, other)).blobs.read(digest)) == BIG


async def test_a_false_list_of_chunks_is_found_out(cache: Cache) -> None:
    """Each chunk is right, and together they are another blob."""
    digest = await cache.far.blobs.put(pieces(BIG, MIB))
    stat = await cache.far.blobs.stat(digest, chunks=True)
    assert stat is not None
    chunks = [*stat.chunks]
    told = BlobStat(stat.size, [*chunks[1:], chunks[0]])

    class Lying(FaultyBlobs):
        async def stat(self, digest: Digest, *, chunks: bool = False) -> BlobStat | None:
            return told

    near = MemoryNear(100 * MIB)
    lying = cached(near, cache.far.with_services(blobs=Lying(cache.far.blobs, failing(CorruptError(), after=10**9))))
    assert lying.blobs is not None
    came = bytearray()

    async def read() -> None:
        async for piece in lying.blobs.read(digest):  # type: ignore[union-attr]
            came.extend(piece)

    for _ in range(2):
        with pytest.raises(CorruptError, match="other chunks"):
            await read()
        assert len(came) < len(BIG)
        came.clear()
    await lying.blobs._near.flush()  # type: ignore[attr-defined]
    honest = composed_of(cached(near, counting(cache.far, cache.calls)))
    assert await collect(honest.blobs.read(digest)) == BIG
    cache.calls.is_away = True
    assert await collect(honest.blobs.read(digest)) == BIG


async def test_a_chunk_that_is_near_is_no_small_blob_if_it_is_large(cache: Cache) -> None:
    digest = await cache.far.blobs.put(stream([bytes(300_000)]))
    for _ in range(2):
        with pytest.raises(ExhaustedError):
            await cache.store.blobs.get_many([digest])
        await collect(cache.store.blobs.read(digest))


async def test_path_infos_are_believed_for_a_while(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(path_infos, "_now", lambda: now)
    info = await stored_file(cache.far, "signed")
    key = info.store_path.output_hash
    assert await cache.store.path_infos.get(key) is None
    await cache.far.path_infos.put(info)
    assert await cache.store.path_infos.get(key) is None
    now += 3.1
    assert await cache.store.path_infos.get_many([key, key]) == {key: info}
    signed = replace(info, signatures=(signature("one"),))
    await cache.far.path_infos.put(signed)
    assert await cache.store.path_infos.get(key) == info
    now += 30.1
    assert await cache.store.path_infos.get(key) == signed
    assert cache.calls.methods["get path info"] == 3
    # A put and a removal through the cache are seen at once.
    twice = await cache.store.path_infos.put(replace(info, signatures=(signature("two"),)))
    assert len(twice.signatures) == 2
    assert await cache.store.path_infos.get(key) == twice
    assert cache.store.removal is not None
    assert await cache.store.removal.remove([key], unused_since=None) == {key}
    assert await cache.store.path_infos.get(key) is None


async def test_existing_asks_far_and_corrects_what_was_believed(cache: Cache) -> None:
    info = await stored_file(cache.far, "elsewhere")
    key = info.store_path.output_hash
    assert await cache.store.path_infos.get(key) is None
    await cache.far.path_infos.put(info)
    assert await cache.store.path_infos.existing([key]) == {key: info.store_path}
    assert await cache.store.path_infos.get(key) == info
    assert cache.far.removal is not None
    await cache.far.removal.remove([key], unused_since=None)
    assert await cache.store.path_infos.existing([key]) == {}
    assert await cache.store.path_infos.get(key) is None


async def test_path_infos_that_are_put_together_are_seen_at_once(cache: Cache) -> None:
    class Together:
        async def put_many(self, path_infos: Sequence[PathInfo], /) -> list[PathInfo]:
            return [await cache.far.path_infos.put(each) for each in path_infos]

    store = composed_of(cached(MemoryNear(MIB), replace(cache.far, many_path_infos=Together())))
    infos = [await stored_file(cache.far, f"together-{n}") for n in range(3)]
    hashes = [each.store_path.output_hash for each in infos]
    assert await store.path_infos.get_many(hashes) == {}
    assert store.many_path_infos is not None
    assert await store.many_path_infos.put_many(infos) == infos
    assert await store.path_infos.get_many(hashes) == dict(zip(hashes, infos, strict=True))


def test_each_power_was_thought_of() -> None:
    """What a power does past the services, a cache must hear of, or need not: see `cached`."""
    reads_by_way_of_near = {"frames", "granular"}
    path_infos_hear_of_it = {"many_path_infos", "removal"}
    takes_content_which_is_near_when_it_is_read = {"lone_files", "staging", "assembling", "deltas"}
    is_about_far = {"named_paths", "arrivals", "collection", "statistics", "known_nars"}
    thought_of = reads_by_way_of_near | path_infos_hear_of_it | takes_content_which_is_near_when_it_is_read | is_about_far
    assert thought_of == POWERS.keys()


async def test_questions_for_a_path_that_is_not_there_are_one(cache: Cache) -> None:
    hashes = [noise(20, f"absent {n}") for n in range(10)]
    for _ in range(3):
        await asyncio.gather(*(cache.store.path_infos.get(each) for each in hashes for _ in range(5)))
    assert cache.calls.methods["get path info"] == 10


async def test_a_path_that_is_put_while_it_is_looked_for_is_found_then(cache: Cache) -> None:
    info = await stored_file(cache.far, "meanwhile")
    key = info.store_path.output_hash
    asking = asyncio.create_task(cache.store.path_infos.get(key))
    await asyncio.sleep(0)
    await cache.store.path_infos.put(info)
    await asking
    assert await cache.store.path_infos.get(key) == info


async def test_kept_path_infos_have_a_bound(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_infos, "_MOST", 10_000)
    for number in range(100):
        await cache.store.path_infos.get(noise(20, f"absent {number}"))
    assert len(cache.store.path_infos._kept) <= 20  # type: ignore[attr-defined]


async def test_zstd_frames_of_far_pass_through(tmp_path: Path) -> None:
    """Also after damage, which is mended, and from what was read as content."""
    async with await open_local(tmp_path / "far") as far:
        digests = [await far.blobs.put(stream([content])) for content in (BIG, b"text " * 100_000, b"small")]
        near = MemoryNear(100 * MIB)
        frames_of_far = far.frames
        assert frames_of_far is not None
        store = composed_of(cached(near, far))
        await store.blobs.get_many(digests[2:])
        await collect(store.blobs.read(digests[1]))
        frames = store.frames
        assert frames is not None
        found = await frames.find(digests)
        assert found == await frames_of_far.find(digests) == await frames.find(digests)
        runs = [b"".join(chunk.digest for chunk in chunks) for chunks in found]
        right = await stored_bytes(frames_of_far, runs)
        for _ in range(2):
            assert await stored_bytes(frames, runs) == right
        await store.blobs._near.flush()  # type: ignore[attr-defined]
        for key, value in near._values.items():
            near._values[key] = bytes(value[:-1]) + bytes([value[-1] ^ 1])

        def checked(stored: list[list[memoryview]]) -> list[list[bytes]]:
            got = [[bytes(each) for each in run] for run in stored]
            if got != right:
                raise CorruptError("not the content")
            return got

        assert await frames.read(runs, checked) == right
        await store.close()


async def test_a_nar_passes_through_as_zstd(tmp_path: Path) -> None:
    """The second time, far is not asked, and the file has the same bytes."""
    tree: Tree = {b"big": TreeFile(BIG), b"text": TreeFile(b"text " * 100_000), b"d": {b"small": TreeFile(b"small")}}
    async with await open_local(tmp_path / "far") as far:
        node = await put_tree(far, tree)
        assert far.frames is not None
        right = await zstd_nar(far, node)
        near = DiskNear(tmp_path / "near", 2 * SMALLEST)
        calls: list[object] = []
        store = composed_of(cached(near, replace(far, frames=CountedFrames(far.frames, calls))))
        assert await zstd_nar(store, node) == right
        await store.blobs._near.flush()  # type: ignore[attr-defined]
        reads = len(calls)
        assert await zstd_nar(store, node) == right
        assert len(calls) == reads > 0
        assert zstandard.ZstdDecompressor().stream_reader(right, read_across_frames=True).read() == nar(tree)
        await store.close()


class CountedFrames:
    """A StoredFrames that notes its calls."""

    def __init__(self, inner: StoredFrames, calls: list[object]) -> None:
        self._inner = inner
        self._calls = calls

    async def find(self, digests: Sequence[Digest]) -> list[list[Frame]]:
        self._calls.append(digests)
        return await self._inner.find(digests)

    async def read(self, runs: Sequence[bytes], use: Callable[[list[list[memoryview]]], T]) -> T:
        self._calls.append(runs)
        return await self._inner.read(runs, use)


async def zstd_nar(store: Store, node: Node) -> bytes:
    nars = PlannedNars.of(store)
    assert nars is not None
    plan = await nars.plan(node)
    zstd = await collect(nars.read_zstd(node, plan, 0, plan.zstd_size))
    await nars.finish()
    return zstd


async def stored_bytes(frames: StoredFrames, runs: list[bytes]) -> list[list[bytes]]:
    return await frames.read(runs, lambda stored: [[bytes(each) for each in run] for run in stored])


async def test_an_offer_with_some_services_is_cached(tmp_path: Path) -> None:
    far = await open_memory()
    near = DiskNear(tmp_path / "near", SMALLEST)
    blobs = cached(near, Offer(name="blobs", blobs=far.blobs))
    directories = cached(near, Offer(name="directories", directories=far.directories))
    paths = cached(near, Offer(name="paths", path_infos=far.path_infos))
    assert [blobs.directories, blobs.path_infos, blobs.nar, directories.blobs, paths.blobs] == [None] * 5
    store = composed(blobs, directories, paths)
    node = await put_tree(store, {b"file": TreeFile(b"content")})
    facts = await store.nar.calculate(node)
    assert facts.size > 0
    await store.close()
    with pytest.raises(NotFoundError):
        await collect(composed_of(cached(near, await open_memory())).blobs.read(Digest.of(b"content")))  # near is closed


async def test_a_slow_far_store_is_read_ahead() -> None:
    async with await open_memory() as far:
        digest = await far.blobs.put(pieces(BIG, MIB))
        slow = far.with_services(blobs=FaultyBlobs(far.blobs, delaying(0.002)))
        store = composed_of(cached(MemoryNear(0), slow))
        assert await collect(store.blobs.read(digest)) == BIG
        await store.close()

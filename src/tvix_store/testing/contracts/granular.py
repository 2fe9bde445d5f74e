"""The contract of Granular."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import zstandard

from tvix_store.compression.chunk_frames import chunk_content
from tvix_store.errors import IncompleteError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import MAX_CHUNK, Granular, StoredChunk
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, diamond, missing, noise, stream

CONTENTS = (b"", b"small", b"compressible " * 1000, noise(300_000, "one chunk"), noise(3_000_000, "several"), b"text" * 1_000_000)
LEAF = Directory({b"file": FileNode(missing("a file"), 3)})


def stored_chunk(content: bytes, frame: bytes | None = None) -> StoredChunk:
    return StoredChunk(Digest.of(content).raw, len(content), content if frame is None else frame)


def compressed(content: bytes, level: int = 3) -> bytes:
    return zstandard.compress(content, level)


def _raw_frame(frame: bytes, length: int) -> StoredChunk:
    return StoredChunk(Digest.of(b"x" * length).raw, length, frame)


BAD_CHUNKS = {
    "other content": StoredChunk(missing().raw, 5, b"small"),
    "another length": StoredChunk(Digest.of(b"small").raw, 7, b"small"),
    "longer than it says": StoredChunk(Digest.of(b"small").raw, 4, b"small"),
    "no frame": _raw_frame(b"no zstd at all", 1000),
    "a frame cut short": _raw_frame(compressed(noise(500, "frame") + b"x" * 500)[:-3], 1000),
    "bytes behind the frame": _raw_frame(compressed(b"x" * 1000) + b"more", 1000),
    "two frames": _raw_frame(compressed(b"x" * 500) * 2, 1000),
    "a frame that says less than it holds": _raw_frame(compressed(b"x" * 1001), 1000),
    "too large": _raw_frame(compressed(b"x" * (MAX_CHUNK + 1)), MAX_CHUNK + 1),
    "a window of 128 MiB": _raw_frame(
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
        ).compress(b"x" * 1000),
        1000,
    ),
}


async def put_all(store: Store) -> list[Chunk]:
    """CONTENTS as blobs."""
    return [Chunk(await store.blobs.put(stream([content])), len(content)) for content in CONTENTS]


async def put(granular: Granular, chunks: Sequence[StoredChunk]) -> list[Chunk]:
    await granular.put_chunks(chunks)
    return [Chunk(Digest(chunk.digest), chunk.length) for chunk in chunks]


@pytest.mark.asyncio
class GranularContract:
    """Subclasses give fixtures `store`, new and empty, and `granular`, its Granular."""

    knows_sizes = True
    """Whether the store knows the size of a blob that is its own only chunk."""

    @pytest.fixture
    def granular(self, store: Store) -> Granular:
        assert store.granular is not None
        return store.granular

    async def test_directories_that_are_missing_are_told(self, store: Store, granular: Granular) -> None:
        graph = diamond()
        digests = [each.digest for each in graph]
        assert await granular.missing_directories([*digests, missing()]) == {*digests, missing()}
        await store.directories.put(stream(graph))
        assert await granular.missing_directories([*digests, missing(), digests[0]]) == {missing()}
        assert await granular.missing_directories([]) == set()

    async def test_directories_are_got_in_order(self, store: Store, granular: Granular) -> None:
        graph = diamond()
        await store.directories.put(stream(graph))
        wanted = [*graph[::-1], graph[0]]
        assert await granular.get_directories([each.digest for each in wanted]) == wanted
        assert await granular.get_directories([]) == []
        with pytest.raises(NotFoundError) as caught:
            await granular.get_directories([graph[0].digest, missing()])
        assert str(missing()) in str(caught.value)

    async def test_directories_are_put_upon_others_that_are_there(self, store: Store, granular: Granular) -> None:
        middle = Directory({b"leaf": LEAF.node(), b"link": SymlinkNode(b"x")})
        roots = [Directory({b"middle": middle.node(), b"n": SymlinkNode(b"%d" % n)}) for n in range(3)]
        await granular.put_directories([LEAF])
        await granular.put_directories([middle])
        await granular.put_directories([*roots, roots[0]])
        await granular.put_directories([])
        for root in roots:
            assert [each async for each in store.directories.get_recursive(root.digest)] == [root, middle, LEAF]

    async def test_a_directory_upon_one_that_is_not_there_is_refused(self, store: Store, granular: Granular) -> None:
        above = Directory({b"leaf": LEAF.node()})
        other = Directory({b"other": SymlinkNode(b"x")})
        for refused in ([other, above], [other, above, LEAF]):
            with pytest.raises(InvalidError):
                await granular.put_directories(refused)
        assert await granular.missing_directories([other.digest, above.digest]) == {other.digest, above.digest}

    @pytest.mark.parametrize("is_there", [False, True])
    async def test_a_wrong_size_of_a_directory_is_refused(self, granular: Granular, is_there: bool) -> None:
        if is_there:
            await granular.put_directories([LEAF])
        above = Directory({b"leaf": DirectoryNode(LEAF.digest, 7)})
        with pytest.raises(InvalidError):
            await granular.put_directories([above] if is_there else [LEAF, above])
        assert await granular.missing_directories([above.digest]) == {above.digest}

    async def test_the_chunks_of_a_blob_are_its_content(self, store: Store, granular: Granular) -> None:
        for content, chunks in zip(CONTENTS, await granular.list_chunks(await put_all(store)), strict=True):
            assert sum(chunk.length for chunk in chunks) == len(content)
            got = [each for chunk in chunks for each in await granular.get_chunks([chunk])]
            assert b"".join(chunk_content(each.stored, each.length) for each in got) == content
            assert [(each.digest, each.length) for each in got] == [(chunk.digest, chunk.length) for chunk in chunks]
            for each in got:
                assert Digest.of(chunk_content(each.stored, each.length)).raw == each.digest

    async def test_chunks_are_got_in_any_order(self, store: Store, granular: Granular) -> None:
        listed = await granular.list_chunks((await put_all(store))[1:5])
        wanted = [chunk for chunks in listed for chunk in chunks][::-1]
        got = await granular.get_chunks([*wanted, wanted[0]])
        assert [each.digest for each in got] == [chunk.digest for chunk in (*wanted, wanted[0])]
        assert await granular.get_chunks([]) == []

    async def test_what_is_not_there_is_told(self, store: Store, granular: Granular) -> None:
        await put_all(store)
        with pytest.raises(NotFoundError) as caught:
            await granular.list_chunks([Chunk(Digest.of(b"small"), 5), Chunk(missing(), 3)])
        assert str(missing()) in str(caught.value)
        with pytest.raises(NotFoundError):
            await granular.get_chunks([Frame(Digest.of(b"small").raw, 5, 5), Frame(missing().raw, 3, 3)])
        assert await granular.list_chunks([]) == []

    async def test_other_sizes_than_are_stated_are_refused(self, store: Store, granular: Granular) -> None:
        blobs = await put_all(store)
        one, several = blobs[1], blobs[4]
        for blob in (one, several) if self.knows_sizes else (several,):
            for size in (blob.size - 1, blob.size + 1):
                with pytest.raises(InvalidError) as caught:
                    await granular.list_chunks([*blobs, Chunk(blob.digest, size)])
                assert str(blob.digest) in str(caught.value)
        [[chunk]] = await granular.list_chunks([one])
        for length in (chunk.length - 1, chunk.length + 1):
            with pytest.raises(InvalidError):
                await granular.get_chunks([chunk, chunk._replace(length=length)])

    async def test_chunks_are_put_as_frames_or_as_they_are(self, store: Store, granular: Granular) -> None:
        contents = (b"", b"raw", b"compressible " * 1000, noise(600_000, "large"), b"large " * 200_000)
        chunks = [stored_chunk(content, compressed(content) if b"compressible" in content else None) for content in contents]
        put_chunks = await put(granular, [*chunks, chunks[1]])
        await put(granular, chunks[:2])
        assert await store.blobs.missing([chunk.digest for chunk in put_chunks]) == set()
        assert await granular.missing_chunks([missing(), *(chunk.digest for chunk in put_chunks)]) == {missing()}
        assert await granular.missing_chunks([]) == set()
        for content in contents:
            assert await collect(store.blobs.read(Digest.of(content))) == content

    @pytest.mark.parametrize("kind", BAD_CHUNKS)
    async def test_a_chunk_that_is_not_what_it_says_is_refused(self, store: Store, granular: Granular, kind: str) -> None:
        good = stored_chunk(b"a good one")
        with pytest.raises(InvalidError):
            await granular.put_chunks([good, BAD_CHUNKS[kind]])
        assert await store.blobs.missing([Digest(BAD_CHUNKS[kind].digest)])

    async def test_a_blob_is_made_of_chunks_that_were_put(self, store: Store, granular: Granular) -> None:
        parts = [noise(70_000, "first"), b"small", noise(500_000, "large"), b"small", b"text" * 50_000]
        whole = b"".join(parts)
        chunks = await put(granular, [stored_chunk(part) for part in parts])
        await granular.assemble(Digest.of(whole), chunks)
        assert await collect(store.blobs.read(Digest.of(whole))) == whole
        [listed] = await granular.list_chunks([Chunk(Digest.of(whole), len(whole))])
        assert sum(chunk.length for chunk in listed) == len(whole)
        with pytest.raises(InvalidError):
            await granular.assemble(missing(), chunks)
        with pytest.raises(IncompleteError) as caught:
            await granular.assemble(missing("other"), [*chunks, Chunk(missing("chunk"), 5)])
        assert str(missing("chunk")) in str(caught.value)
        assert await store.blobs.missing([missing(), missing("other")]) == {missing(), missing("other")}

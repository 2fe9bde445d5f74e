"""Servers that lie about the parts of content, and about many paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.backends.grpc_servers import serve, store_methods
from tests.backends.test_grpc_distrust import answering, endless, path_info
from tvix_store.backends.grpc import open_store
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, RemoteError
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.protocol.bulk import encode_blobs, encode_digests, encode_store_paths
from tvix_store.protocol.chunk_tables import ChunkList, encode_chunk_lists, encode_chunks
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Method
from tvix_store.services.blobs import Chunk
from tvix_store.services.frames import Frame
from tvix_store.services.granular import Granular, StoredChunk
from tvix_store.services.store import Store
from tvix_store.testing.content import missing

pytestmark = pytest.mark.usefixtures("protocol")

ONE, TWO, OTHER = (Directory({name: SymlinkNode(b"x")}) for name in (b"one", b"two", b"other"))
FIRST, SECOND = Digest.of(b"first"), Digest.of(b"second")
BLOBS = [Chunk(FIRST, 5), Chunk(SECOND, 6)]
CHUNKS = [Frame(FIRST.raw, 5, 5), Frame(SECOND.raw, 6, 6)]
ASKED = [path_info("one"), path_info("two")]
HASHES = [each.store_path.output_hash for each in ASKED]


@asynccontextmanager
async def lying(**lies: Method) -> AsyncIterator[Store]:
    """The store of a server of ours some of whose calls of BulkService lie."""
    methods = await store_methods(granular=True)
    methods |= {f"/{BULK_SERVICE}/{call}": lie for call, lie in lies.items()}
    async with serve(methods) as url, await open_store(url) as store:
        yield store


def granular(store: Store) -> Granular:
    assert store.granular is not None
    return store.granular


def directories(*each: Directory) -> bytes:
    return encode_blobs(directory.encoded for directory in each)


def listed(blob: Digest, *sizes: int, more: bool = False) -> ChunkList:
    return ChunkList(blob, ChunkTable.of((missing(str(size)).raw, size, size) for size in sizes), more)


def lists(*each: ChunkList) -> bytes:
    return encode_chunk_lists(each)


def chunks(*each: tuple[bytes, int, bytes]) -> bytes:
    return b"".join(encode_chunks(each))


def path_infos(*names: str) -> bytes:
    return encode_blobs(path_info(name).encoded for name in names)


def paths(*names: str) -> bytes:
    return encode_store_paths(path_info(name).store_path for name in names)


async def get_directories(store: Store) -> object:
    return await granular(store).get_directories([ONE.digest, TWO.digest])


async def list_chunks(store: Store) -> object:
    return await granular(store).list_chunks(BLOBS)


async def get_chunks(store: Store) -> object:
    return await granular(store).get_chunks(CHUNKS)


async def get_path_infos(store: Store) -> object:
    return await store.path_infos.get_many(HASHES)


async def existing_paths(store: Store) -> object:
    return await store.path_infos.existing(HASHES)


GARBAGE = b"\x0a\xff\xff"
HONEST_CHUNKS = (FIRST.raw, 5, b"first"), (SECOND.raw, 6, b"second")
LIES: dict[str, tuple[Callable[[Store], Awaitable[object]], str, tuple[bytes, ...]]] = {
    "another directory": (get_directories, "GetDirectories", (directories(ONE, OTHER),)),
    "a directory too few": (get_directories, "GetDirectories", (directories(ONE),)),
    "no directory": (get_directories, "GetDirectories", ()),
    "a directory too many": (get_directories, "GetDirectories", (directories(ONE, TWO, ONE),)),
    "directories in another order": (get_directories, "GetDirectories", (directories(TWO, ONE),)),
    "directories that are none": (get_directories, "GetDirectories", (encode_blobs([b"none"]),)),
    "no message of directories": (get_directories, "GetDirectories", (GARBAGE,)),
    "the list of another blob": (list_chunks, "ListChunks", (lists(listed(FIRST, 5), listed(missing(), 6)),)),
    "a list too few": (list_chunks, "ListChunks", (lists(listed(FIRST, 5)),)),
    "no list": (list_chunks, "ListChunks", ()),
    "a list too many": (list_chunks, "ListChunks", (lists(listed(FIRST, 5), listed(SECOND, 6), listed(SECOND, 6)),)),
    "a list of another size": (list_chunks, "ListChunks", (lists(listed(FIRST, 3, 2), listed(SECOND, 4, 1)),)),
    "a list of sizes that go round": (list_chunks, "ListChunks", (lists(listed(FIRST, (1 << 64) - 1, 6), listed(SECOND, 6)),)),
    "an empty list": (list_chunks, "ListChunks", (lists(listed(FIRST), listed(SECOND, 6)),)),
    "a list that does not end": (list_chunks, "ListChunks", (lists(listed(FIRST, 5), listed(SECOND, 6, more=True)),)),
    "a list that another goes on with": (list_chunks, "ListChunks", (lists(listed(FIRST, 2, more=True), listed(SECOND, 3)),)),
    "a list of halves": (list_chunks, "ListChunks", (b"\x0a\x27\x0a\x20" + FIRST.raw + b"\x12\x03abc",)),
    "no message of lists": (list_chunks, "ListChunks", (GARBAGE,)),
    "another chunk": (get_chunks, "GetChunks", (chunks(HONEST_CHUNKS[0], (missing().raw, 6, b"second")),)),
    "a chunk of another length": (get_chunks, "GetChunks", (chunks(HONEST_CHUNKS[0], (SECOND.raw, 7, b"second!")),)),
    "a chunk longer than it is": (get_chunks, "GetChunks", (chunks(HONEST_CHUNKS[0], (SECOND.raw, 6, b"second!")),)),
    "a chunk too few": (get_chunks, "GetChunks", (chunks(HONEST_CHUNKS[0]),)),
    "no chunk": (get_chunks, "GetChunks", ()),
    "a chunk too many": (get_chunks, "GetChunks", (chunks(*HONEST_CHUNKS), chunks(HONEST_CHUNKS[1]))),
    "chunks in another order": (get_chunks, "GetChunks", (chunks(*HONEST_CHUNKS[::-1]),)),
    "no message of chunks": (get_chunks, "GetChunks", (GARBAGE,)),
    "another path info": (get_path_infos, "GetPathInfos", (path_infos("one", "other"),)),
    "a path info twice": (get_path_infos, "GetPathInfos", (path_infos("one"), path_infos("one"))),
    "path infos that are none": (get_path_infos, "GetPathInfos", (encode_blobs([b"none"]),)),
    "no message of path infos": (get_path_infos, "GetPathInfos", (GARBAGE,)),
    "another path": (existing_paths, "ExistingPaths", (paths("one", "other"),)),
    "a path twice": (existing_paths, "ExistingPaths", (paths("one", "one"),)),
    "a path that is none": (existing_paths, "ExistingPaths", (encode_blobs([b"none"]),)),
    "no answer about paths": (existing_paths, "ExistingPaths", ()),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_was_not_asked_for_is_corrupt(lie: str, protocol: str) -> None:
    ask, call, answers = LIES[lie]
    # Over Connect, an answer to a unary call is a body. There is no way to send none, and the server says so.
    error = RemoteError if protocol == "connect" and lie == "no answer about paths" else CorruptError
    async with lying(**{call: answering(*answers)}) as store:
        with pytest.raises(error):
            await ask(store)


ENDLESS: dict[str, tuple[Callable[[Store], Awaitable[object]], str, bytes]] = {
    "directories": (get_directories, "GetDirectories", directories(ONE)),
    "no directories": (get_directories, "GetDirectories", b""),
    "lists": (list_chunks, "ListChunks", lists(listed(FIRST, 5))),
    "no lists": (list_chunks, "ListChunks", b""),
    "parts of a list": (list_chunks, "ListChunks", lists(listed(FIRST, *[1] * 1000, more=True))),
    "empty parts of a list": (list_chunks, "ListChunks", lists(listed(FIRST, more=True))),
    "chunks": (get_chunks, "GetChunks", chunks(HONEST_CHUNKS[0])),
    "no chunks": (get_chunks, "GetChunks", b""),
    "path infos": (get_path_infos, "GetPathInfos", path_infos("one")),
    "no path infos": (get_path_infos, "GetPathInfos", b""),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_end_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.granular.MAX_CHUNKS", 10_000)
    ask, call, message = ENDLESS[kind]
    async with lying(**{call: endless(message)}) as store:
        with pytest.raises((CorruptError, ExhaustedError)):
            await ask(store)


async def test_only_what_was_asked_for_can_be_missing() -> None:
    answer: Any = answering(encode_digests([missing(), FIRST]))
    async with lying(MissingDirectories=answer, Missing=answer) as store:
        assert await granular(store).missing_directories([FIRST, SECOND]) == {FIRST}
        assert await granular(store).missing_chunks([FIRST, SECOND]) == {FIRST}


async def test_a_chunk_that_would_be_refused_for_its_length_is_not_sent() -> None:
    async with lying(PutChunks=answering(b"")) as store:
        with pytest.raises(InvalidError):
            await granular(store).put_chunks([StoredChunk(FIRST.raw, (4 << 20) + 1, b"frame")])


async def test_directories_without_an_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.services.granular.MAX_DIRECTORIES", 10_000)
    large = [Directory({name: SymlinkNode(b"x" * 4000)}) for name in (b"one", b"two", b"three")]
    async with lying(GetDirectories=answering(of=[directories(each) for each in large])) as store:
        with pytest.raises(ExhaustedError, match="more than 10000 bytes"):
            await granular(store).get_directories([each.digest for each in large])


async def test_large_path_infos_without_an_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.backends.grpc.bulk_path_infos._MOST", 100)
    async with lying(GetPathInfos=answering(path_infos("one"), path_infos("two"))) as store:
        with pytest.raises(ExhaustedError, match="more than 100 bytes"):
            await store.path_infos.get_many(HASHES)

"""BulkService's calls for parts of content, by a client of another make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard

from tests.rpc.client import Client
from tests.rpc.schema import message
from tests.rpc.test_store_services import Refusal
from tvix_store.config import open_store
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.chunk_tables import MAX_CONTENT
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.services import serve_store
from tvix_store.services import Store
from tvix_store.services.granular import FREE_CHUNKS, MAX_CHUNK
from tvix_store.testing.content import collect, diamond, file_nar, missing, noise, put_file, stream

STATUS = grpc.StatusCode
MIB = 1 << 20
PARTS = [noise(size, f"part {size}") for size in (300_000, 1, 2_000_000, 70_000)]
WHOLE = b"".join(PARTS)


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with await open_store("memory://" if request.param == "memory" else str(tmp_path / "store")) as store:
        yield store


def kind(name: str) -> Any:
    return message(f"tvix_store.v1.{name}")


def path(call: str) -> str:
    return f"/{BULK_SERVICE}/{call}"


def chunks(*contents: bytes, **other: Any) -> Any:
    fields = {
        "digests": b"".join(Digest.of(content).raw for content in contents),
        "length": [len(content) for content in contents],
        "stored": [len(content) for content in contents],
        "data": b"".join(contents),
    }
    return kind("Chunks")(**(fields | other))


def sized(*things: tuple[Digest, int]) -> Any:
    return kind("SizedDigests")(digests=b"".join(digest.raw for digest, _ in things), size=[size for _, size in things])


def chunk_list(blob: Digest, parts: Sequence[bytes], *, more: bool = False) -> Any:
    digests = b"".join(Digest.of(part).raw for part in parts)
    return kind("ChunkList")(blob=blob.raw, digests=digests, length=[len(part) for part in parts], more=more)


async def put_parts(client: Client) -> None:
    await client.unary(path("PutChunks"), chunks(*PARTS), "tvix_store.v1.PutChunksResponse")


async def assemble(client: Client, *messages: Sequence[Any]) -> None:
    requests = [kind("ChunkLists")(list=lists) for lists in messages]
    await client.requests(path("Assemble"), requests, "tvix_store.v1.AssembleResponse")


async def test_directories_are_put_and_got_in_messages_of_a_mebibyte(client: Client, store: Store) -> None:
    directories = [Directory({b"%d-%d" % (n, m): SymlinkNode(b"x" * 4000) for m in range(100)}) for n in range(8)]
    digests = kind("Digests")(digest=[each.digest.raw for each in directories])
    absent = await client.unary(path("MissingDirectories"), digests, "tvix_store.v1.Digests")
    assert set(absent.digest) == set(digests.digest)
    request = kind("Directories").FromString(
        b"".join(kind("Blobs")(data=[each.encoded]).SerializeToString() for each in directories)
    )
    await client.unary(path("PutDirectories"), request, "tvix_store.v1.PutDirectoriesResponse")
    assert await store.directories.get(directories[3].digest) == directories[3]
    answers = await client.answers(path("GetDirectories"), digests, "tvix_store.v1.Directories")
    assert [each.SerializeToString() for answer in answers for each in answer.directory] == [each.encoded for each in directories]
    assert 3 <= len(answers) <= 5
    assert max(answer.ByteSize() for answer in answers) < 1_100_000
    digests.digest.append(missing().raw)
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await client.answers(path("GetDirectories"), digests, "tvix_store.v1.Directories")
    assert list((await client.unary(path("MissingDirectories"), digests, "tvix_store.v1.Digests")).digest) == [missing().raw]


async def test_a_directory_before_one_that_it_refers_to_is_refused(client: Client) -> None:
    encoded = [each.encoded for each in diamond()[::-1]]
    request = kind("Directories").FromString(kind("Blobs")(data=encoded).SerializeToString())
    with Refusal(STATUS.INVALID_ARGUMENT):
        await client.unary(path("PutDirectories"), request, "tvix_store.v1.PutDirectoriesResponse")


async def test_a_blob_is_put_in_chunks_listed_and_got(client: Client, store: Store) -> None:
    await put_parts(client)
    whole = Digest.of(WHOLE)
    await assemble(client, [chunk_list(whole, PARTS[:1], more=True)], [], [chunk_list(whole, PARTS[1:]), chunk_list(whole, PARTS)])
    assert await collect(store.blobs.read(whole)) == WHOLE
    [answer] = await client.answers(path("ListChunks"), sized((whole, len(WHOLE))), "tvix_store.v1.ChunkLists")
    [listed] = answer.list
    assert (listed.blob, listed.more, sum(listed.length)) == (whole.raw, False, len(WHOLE))
    wanted = kind("SizedDigests")(digests=listed.digests, size=listed.length)
    answers = await client.answers(path("GetChunks"), wanted, "tvix_store.v1.Chunks")
    assert b"".join(answer.digests for answer in answers) == listed.digests
    assert b"".join(answer.data for answer in answers) == WHOLE
    assert max(answer.ByteSize() for answer in answers) <= max(1_100_000, max(listed.stored) + 1000)


async def test_one_chunk_is_got_by_its_digest_and_length(client: Client) -> None:
    await put_parts(client)
    digest = Digest.of(PARTS[3])
    got = await client.unary(path("GetChunk"), kind("GetChunkRequest")(digest=digest.raw, length=70_000), "tvix_store.v1.Chunks")
    assert got == chunks(PARTS[3])
    for length, status in ((69_999, STATUS.INVALID_ARGUMENT), (MAX_CHUNK + 1, STATUS.INVALID_ARGUMENT)):
        with Refusal(status, str(digest)):
            request = kind("GetChunkRequest")(digest=digest.raw, length=length)
            await client.unary(path("GetChunk"), request, "tvix_store.v1.Chunks")
        with Refusal(status, str(digest)):
            await client.answers(path("GetChunks"), sized((digest, length)), "tvix_store.v1.Chunks")
    with Refusal(STATUS.NOT_FOUND, missing().raw.hex()):
        await client.unary(path("GetChunk"), kind("GetChunkRequest")(digest=missing().raw, length=1), "tvix_store.v1.Chunks")


async def test_blobs_are_listed_as_often_as_they_are_asked_for(client: Client, store: Store) -> None:
    blobs = [await put_file(store.blobs, noise(n, "listed")) for n in range(700)]
    large = noise(MIB, "large")
    wanted = [(node.digest, node.size) for node in blobs] + [(await store.blobs.put(stream([large])), MIB)] * 100
    answers = await client.answers(path("ListChunks"), sized(*wanted), "tvix_store.v1.ChunkLists")
    lists = [each for answer in answers for each in answer.list]
    assert [(each.blob, sum(each.length), each.more) for each in lists] == [(digest.raw, size, False) for digest, size in wanted]
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await client.answers(path("ListChunks"), sized(*wanted, (missing(), 3)), "tvix_store.v1.ChunkLists")
    with Refusal(STATUS.INVALID_ARGUMENT, str(wanted[5][0])):
        await client.answers(path("ListChunks"), sized(*wanted, (wanted[5][0], 6)), "tvix_store.v1.ChunkLists")


async def test_a_long_list_comes_in_parts(client: Client, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvix_store.rpc.handlers.granular._ROWS", 3)
    data = noise(2 * MIB, "long")
    digest = await store.blobs.put(stream([data]))
    answers = await client.answers(path("ListChunks"), sized((digest, len(data)), (digest, len(data))), "tvix_store.v1.ChunkLists")
    lists = [each for answer in answers for each in answer.list]
    assert {each.blob for each in lists} == {digest.raw}
    assert all(len(answer.list[0].length) <= 3 for answer in answers)
    assert sum(sum(each.length) for each in lists) == 2 * len(data)
    assert [each.more for each in lists].count(False) == 2
    assert not lists[-1].more


async def test_lists_that_break_a_rule_are_refused(client: Client, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_parts(client)
    whole = Digest.of(WHOLE)
    for messages, words in (
        ([[chunk_list(whole, PARTS[:2], more=True)]], "cut short"),
        ([[chunk_list(whole, PARTS[:2], more=True), chunk_list(missing(), PARTS[2:])]], "has not ended"),
        ([[chunk_list(whole, [])]], "no chunks"),
        ([[chunk_list(whole, [], more=True)] * 3], "cut short"),
        ([[chunk_list(whole, [b"", *PARTS])]], "0 bytes"),
        ([[chunk_list(whole, [bytes(MAX_CHUNK + 1)])]], "1 to 4194304"),
        ([[chunk_list(whole, PARTS[:3])]], "not blob"),
        ([[chunk_list(whole, [PARTS[1]] * (FREE_CHUNKS + 1))]], "too small"),
        ([[kind("ChunkList")(blob=whole.raw, digests=bytes(32), length=[1, 2])]], "lengths"),
        ([[kind("ChunkList")(blob=b"short", digests=bytes(32), length=[1])]], "32 bytes"),
    ):
        with Refusal(STATUS.INVALID_ARGUMENT, words):
            await assemble(client, *messages)
    with Refusal(STATUS.FAILED_PRECONDITION, missing("chunk").raw.hex()):
        await assemble(client, [kind("ChunkList")(blob=whole.raw, digests=missing("chunk").raw, length=[5])])
    monkeypatch.setattr("tvix_store.rpc.handlers.granular.MAX_CHUNKS", 7)
    with Refusal(STATUS.RESOURCE_EXHAUSTED, "7 chunks"):
        await assemble(client, [chunk_list(whole, PARTS)], [chunk_list(whole, PARTS)])
    monkeypatch.setattr("tvix_store.rpc.handlers.granular._MAX_BYTES", len(WHOLE) * 3 // 2)
    monkeypatch.setattr("tvix_store.rpc.handlers.granular.MAX_CHUNKS", 100)
    with Refusal(STATUS.RESOURCE_EXHAUSTED, "TiB"):
        await assemble(client, [chunk_list(whole, PARTS)], [chunk_list(whole, PARTS)])
    assert await store.blobs.missing([missing()]) == {missing()}


async def test_a_message_of_chunks_that_holds_gigabytes_is_refused_unread(client: Client) -> None:
    zeros = zstandard.compress(bytes(MAX_CHUNK))
    digest = Digest.of(bytes(MAX_CHUNK)).raw
    count = MAX_CONTENT // MAX_CHUNK
    for number in (count, count + 1):
        request = kind("Chunks")(
            digests=digest * number, length=[MAX_CHUNK] * number, stored=[len(zeros)] * number, data=zeros * number
        )
        if number == count:
            await client.unary(path("PutChunks"), request, "tvix_store.v1.PutChunksResponse")
        else:
            with Refusal(STATUS.INVALID_ARGUMENT, str(MAX_CONTENT)):
                await client.unary(path("PutChunks"), request, "tvix_store.v1.PutChunksResponse")


async def test_path_infos_are_got_and_paths_are_told_by_the_many(client: Client, store: Store) -> None:
    path_infos: list[PathInfo] = []
    for n in range(70):
        node = await put_file(store.blobs, b"%d" % n)
        put = await store.path_infos.put(PathInfo(StorePath(noise(20, str(n)), f"n{n}"), node, file_nar(b"%d" % n)))
        path_infos.append(put)
    hashes = [each.store_path.output_hash for each in path_infos]
    request = kind("OutputHashes")(output_hash=[*hashes, bytes(20), hashes[0]])
    answers = await client.answers(path("GetPathInfos"), request, "tvix_store.v1.PathInfos")
    got = sorted(each.SerializeToString() for answer in answers for each in answer.path_info)
    assert got == sorted(each.encoded for each in path_infos)
    existing = await client.unary(path("ExistingPaths"), request, "tvix_store.v1.StorePaths")
    assert sorted(existing.store_path) == sorted(str(each.store_path) for each in path_infos)
    with Refusal(STATUS.INVALID_ARGUMENT, "20 bytes"):
        await client.answers(path("GetPathInfos"), kind("OutputHashes")(output_hash=[bytes(19)]), "tvix_store.v1.PathInfos")


async def test_path_infos_that_may_have_to_be_fetched_are_got_some_at_a_time(store: Store) -> None:
    """And to ask which paths there are fetches none."""
    asked: list[int] = []

    class Watched:
        async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
            asked.append(len(output_hashes))
            return {}

        async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
            return {}

    app, _ = serve_store(replace(store, path_infos=Watched()))  # type: ignore[arg-type]
    call: Any = None
    hashes = [noise(20, str(n)) for n in range(100)]
    assert await app.methods[path("ExistingPaths")].handle(hashes, call) == b""  # type: ignore[misc,arg-type]
    assert asked == []
    assert [_ async for _ in app.methods[path("GetPathInfos")].handle(hashes, call)] == []  # type: ignore[union-attr,arg-type]
    assert sum(asked) == 100
    assert max(asked) <= 32


async def put_list(client: Client, content: bytes) -> Any:
    """A list of WHOLE that stands in a chunk with this content."""
    await client.unary(path("PutChunks"), chunks(content), "tvix_store.v1.PutChunksResponse")
    return kind("ChunkList")(blob=Digest.of(WHOLE).raw, listed=Digest.of(content).raw, listed_size=len(content))


async def test_a_list_may_stand_in_chunks_that_were_put(client: Client, store: Store) -> None:
    await put_parts(client)
    whole = Digest.of(WHOLE)
    halves = [await put_list(client, chunk_list(whole, some).SerializeToString()) for some in (PARTS[:1], PARTS[1:])]
    halves[0].more = True
    await assemble(client, [halves[0]], [halves[1]])
    assert await collect(store.blobs.read(whole)) == WHOLE


@pytest.mark.parametrize("wrong", ["another blob", "a list of lists", "garbage", "missing", "too large"])
async def test_a_chunk_that_is_no_list_is_refused(client: Client, store: Store, wrong: str) -> None:
    await put_parts(client)
    whole = Digest.of(WHOLE)
    right = chunk_list(whole, PARTS).SerializeToString()
    match wrong:
        case "another blob":
            listed = await put_list(client, chunk_list(missing(), PARTS).SerializeToString())
        case "a list of lists":
            listed = await put_list(client, (await put_list(client, right)).SerializeToString())
        case "garbage":
            listed = await put_list(client, b"\xff" * 50)
        case "missing":
            listed = kind("ChunkList")(blob=whole.raw, listed=missing().raw, listed_size=100)
        case _:
            listed = kind("ChunkList")(blob=whole.raw, listed=Digest.of(right).raw, listed_size=1 << 40)
    with Refusal(STATUS.NOT_FOUND if wrong == "missing" else STATUS.INVALID_ARGUMENT):
        await assemble(client, [listed])
    assert await store.blobs.missing([whole]) == {whole}

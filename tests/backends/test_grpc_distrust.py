"""Nothing that a server sends is believed unchecked: here are servers that lie."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.backends.grpc_servers import ANYTHING, serve, store_methods
from tvix_store.backends.grpc import open_store
from tvix_store.errors import CorruptError, ExhaustedError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.blobs import encode_chunk, encode_digest, encode_stat
from tvix_store.protocol.bulk import encode_blobs, encode_digests
from tvix_store.protocol.dialects import BULK_SERVICE, TVIX
from tvix_store.rpc.method import Call, Method, Streaming, Unary, client_streaming
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, diamond, file_nar, missing, noise, pieces, stream

pytestmark = pytest.mark.usefixtures("protocol")

MIB = 1 << 20
SMALL, LARGE = noise(1000, "small"), noise(3 * MIB, "large")


@asynccontextmanager
async def lying(*, bulk: bool = True, **lies: Method) -> AsyncIterator[Store]:
    """The store of a server some of whose calls lie: `blob_Put` is Put of its BlobService, and so on."""
    paths: dict[str, Callable[[str], str]] = {
        "blob": TVIX.blob,
        "directory": TVIX.directory,
        "path_info": TVIX.path_info,
        "bulk": lambda call: f"/{BULK_SERVICE}/{call}",
    }
    methods = await store_methods(dialects=[TVIX], bulk=bulk)
    for name, lie in lies.items():
        service, _, call = name.rpartition("_")
        methods[paths[service](call)] = lie
    async with serve(methods) as url, await open_store(url) as store:
        yield store


def answering(*answers: bytes, of: Iterable[bytes] = ()) -> Method:
    """A method that reads its input to the end and answers always the same."""

    async def answer(messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        async for _ in messages:
            pass
        for each in (*answers, *of):
            yield each

    return Streaming(answer, ANYTHING, one_answer=len(answers) == 1 and of == ())


def endless(message: bytes) -> Method:
    async def answer(_messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        while True:
            yield message

    return Streaming(answer, ANYTHING)


def path_info(name: str) -> PathInfo:
    return PathInfo(StorePath(noise(20, name), name), FileNode(Digest.of(SMALL), len(SMALL)), file_nar(SMALL))


async def test_nothing_is_given_out_of_a_small_blob_with_wrong_bytes() -> None:
    async with lying(blob_Read=answering(encode_chunk(SMALL))) as store:
        with pytest.raises(CorruptError, match=str(missing())):
            await anext(store.blobs.read(missing()))


@pytest.mark.parametrize("sent", [LARGE[: 2 * MIB], LARGE + b"more", LARGE[:-1] + b"!", LARGE[:MIB] * 3], ids=len)
async def test_a_read_of_wrong_bytes_does_not_end_well(sent: bytes) -> None:
    messages = [encode_chunk(sent[at : at + MIB]) for at in range(0, len(sent), MIB)]
    async with lying(blob_Read=answering(*messages)) as store:
        with pytest.raises(CorruptError):
            await collect(store.blobs.read(Digest.of(LARGE)))


async def test_a_blob_in_large_messages_is_given_out_in_pieces_of_a_mebibyte() -> None:
    data = noise(7 * MIB + 5, "large messages")
    async with lying(blob_Read=answering(encode_chunk(data[: 4 * MIB]), b"", encode_chunk(data[4 * MIB :]))) as store:
        received = [piece async for piece in store.blobs.read(Digest.of(data))]
        assert all(0 < len(piece) <= MIB for piece in received)
        assert b"".join(received) == data


async def test_a_message_over_the_limit_is_not_received() -> None:
    async with lying(blob_Read=answering(encode_chunk(bytes(17 * MIB)))) as store:
        with pytest.raises(ExhaustedError):
            await collect(store.blobs.read(missing()))


async def test_what_is_no_message_is_corrupt() -> None:
    garbage = answering(b"\x0a\xff\xff")
    async with lying(blob_Read=garbage, blob_Stat=garbage, directory_Get=garbage, path_info_Get=garbage) as store:
        for call in (
            collect(store.blobs.read(missing())),
            store.blobs.stat(missing(), chunks=True),
            store.directories.get(missing()),
            store.path_infos.get(bytes(20)),
        ):
            with pytest.raises(CorruptError, match="breaks a rule"):
                await call


async def test_a_blob_without_end_is_too_large_for_get_many() -> None:
    async with lying(bulk=False, blob_Read=endless(encode_chunk(LARGE[:MIB]))) as store:
        with pytest.raises(ExhaustedError):
            await store.blobs.get_many([Digest.of(SMALL), Digest.of(LARGE)])


@pytest.mark.parametrize("answer", [encode_digest(missing()), b""], ids=["another digest", "no digest"])
async def test_a_put_that_is_answered_with_another_digest_has_failed(answer: bytes) -> None:
    lie = answering(answer)
    async with lying(bulk=False, blob_Put=lie, directory_Put=lie) as store:
        for put in (
            store.blobs.put(stream([SMALL])),
            store.blobs.put(pieces(LARGE, 100_000)),
            store.blobs.put_many([SMALL]),
            store.directories.put(stream(diamond())),
        ):
            with pytest.raises(CorruptError):
                await put


async def test_no_directory_is_not_taken_for_a_stored_one() -> None:
    async with lying(directory_Put=answering(encode_digest(missing()))) as store:
        with pytest.raises(CorruptError):
            await store.directories.put(stream([]))


@pytest.mark.parametrize(
    "blobs", [[SMALL], [SMALL, b"other"], [SMALL, SMALL], [SMALL, b"second", b"third"], []], ids=lambda blobs: f"{len(blobs)} blobs"
)
async def test_a_batch_of_other_blobs_than_asked_for_is_corrupt(blobs: list[bytes]) -> None:
    async with lying(bulk_GetMany=answering(encode_blobs(blobs))) as store:
        with pytest.raises(CorruptError):
            await store.blobs.get_many([Digest.of(SMALL), Digest.of(b"second")])


async def test_a_batch_without_end_is_corrupt() -> None:
    async with lying(bulk_GetMany=endless(encode_blobs([SMALL]))) as store:
        with pytest.raises(CorruptError):
            await store.blobs.get_many([Digest.of(SMALL)])


@pytest.mark.parametrize("digests", [[], [missing()], [Digest.of(SMALL), Digest.of(SMALL)]], ids=len)
async def test_a_batch_that_was_not_stored_as_it_is_has_failed(digests: list[Digest]) -> None:
    async with lying(bulk_PutMany=answering(encode_digests(digests))) as store:
        with pytest.raises(CorruptError):
            await store.blobs.put_many([SMALL])


async def test_only_what_was_asked_for_can_be_missing() -> None:
    async with lying(bulk_Missing=answering(encode_digests([missing(), Digest.of(SMALL)]))) as store:
        assert await store.blobs.missing([Digest.of(SMALL), Digest.of(LARGE)]) == {Digest.of(SMALL)}


async def test_a_range_is_not_read_from_chunks_of_other_sizes_than_the_list_says() -> None:
    wrong = encode_stat(TVIX, [(Digest.of(SMALL), 999), (Digest.of(SMALL), 2000)])
    unusual = encode_stat(TVIX, [(Digest.of(LARGE), 2 * MIB)])
    for bulk in (True, False):
        for stat in (wrong, unusual):
            async with lying(bulk=bulk, blob_Stat=answering(stat)) as store:
                await store.blobs.put_many([SMALL])
                await store.blobs.put(stream([LARGE]))
                with pytest.raises(CorruptError):
                    await collect(store.blobs.read(missing(), 5, 3 * MIB))


async def test_chunks_of_any_size_make_a_range() -> None:
    parts = [noise(size, f"part {size}") for size in (10, 300_000, 5, 700_000, 800_000, 1, 2 * MIB)]
    whole = b"".join(parts)
    async with lying(blob_Stat=answering(encode_stat(TVIX, [(Digest.of(part), len(part)) for part in parts]))) as store:
        for part in parts:
            await store.blobs.put(stream([part]))
        for start, stop in ((1, None), (0, 9), (9, 11), (300_009, 300_016), (1_000_000, 2_500_000), (len(whole) - 1, None)):
            assert await collect(store.blobs.read(missing(), start, stop)) == whole[start:stop], (start, stop)


async def test_a_list_of_chunks_that_fits_no_message_is_done_without() -> None:
    async with lying(blob_Stat=answering(bytes(17 * MIB))) as store:
        digest = await store.blobs.put(stream([LARGE]))
        assert await collect(store.blobs.read(digest, MIB, MIB + 3)) == LARGE[MIB : MIB + 3]


async def test_another_directory_than_asked_for_is_corrupt() -> None:
    async with lying(directory_Get=answering(diamond()[1].encoded)) as store:
        with pytest.raises(CorruptError):
            await store.directories.get(missing())
        with pytest.raises(CorruptError):
            [_ async for _ in store.directories.get_recursive(missing())]


@pytest.mark.parametrize(
    "sent",
    [
        diamond()[:0:-1],
        [diamond()[3], diamond()[0], diamond()[1], diamond()[2]],
        [*diamond()[::-1], diamond()[0]],
        [*diamond()[::-1], Directory({b"unasked": SymlinkNode(b"for")})],
    ],
    ids=["one left out", "a child before its parent", "one twice", "one too many"],
)
async def test_a_graph_that_breaks_the_order_is_corrupt(sent: list[Directory]) -> None:
    async with lying(directory_Get=answering(of=(directory.encoded for directory in sent))) as store:
        with pytest.raises(CorruptError):
            [_ async for _ in store.directories.get_recursive(diamond()[3].digest)]


async def test_another_path_info_than_asked_for_is_corrupt() -> None:
    asked, sent = path_info("asked"), path_info("sent")
    for answer in (sent, replace(asked, nar=file_nar(LARGE))):
        async with lying(path_info_Put=answering(answer.encoded)) as store:
            with pytest.raises(CorruptError):
                await store.path_infos.put(asked)
    async with lying(path_info_Get=answering(sent.encoded)) as store:
        with pytest.raises(CorruptError):
            await store.path_infos.get(asked.store_path.output_hash)


async def test_facts_of_a_nar_without_a_hash_are_corrupt() -> None:
    async with lying(path_info_CalculateNAR=answering(b"\x08\x01")) as store:
        with pytest.raises(CorruptError):
            await store.nar.calculate(SymlinkNode(b"target"))


async def test_no_answer_at_all_is_an_error() -> None:
    async with lying(blob_Stat=answering(), blob_Put=answering(), path_info_List=answering()) as store:
        with pytest.raises(StoreError):
            await store.blobs.stat(missing())
        with pytest.raises(StoreError):
            await store.blobs.put(stream([LARGE]))
        assert [_ async for _ in store.path_infos.list()] == []


async def test_a_method_that_answers_without_reading_all_is_not_sent_more() -> None:
    received = 0

    async def put(messages: AsyncIterator[bytes], _call: Call) -> bytes:
        nonlocal received
        async for _ in messages:
            received += 1
            if received == 3:
                break
        return encode_digest(missing())

    async with lying(blob_Put=client_streaming(put, ANYTHING)) as store:
        with pytest.raises(StoreError):
            await store.blobs.put(stream([noise(MIB)] * 200))
        assert received == 3


async def test_unary_answers_may_be_checked_too() -> None:
    async def unhealthy(_message: bytes, _call: Call) -> bytes:
        return b"\x08\x02"

    methods = await store_methods() | {"/grpc.health.v1.Health/Check": Unary(unhealthy)}
    async with serve(methods) as url, await open_store(url) as store:
        with pytest.raises(StoreError, match="cannot serve"):
            await store.check()

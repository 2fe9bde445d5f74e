"""The services in all dialects, over the wire, by a client of another make."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.rpc.client import Client
from tests.rpc.schema import message
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, SymlinkNode, encode_node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.dialects import SEED, Dialect
from tvix_store.rpc.services import serve_store
from tvix_store.services import Store
from tvix_store.testing.content import diamond, file_nar, missing, noise, put_file, stream

STATUS = grpc.StatusCode


class Refusal:
    """`with Refusal(code, words):` the body's call is refused so."""

    def __init__(self, code: grpc.StatusCode, words: str = "") -> None:
        self._code = code
        self._words = words

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, grpc.RpcError), f"expected {self._code}, got {error!r}"
        found: Any = error
        assert (found.code(), self._words in (found.details() or "")) == (self._code, True), found.details()
        return True


# blobs


async def test_a_blob_put_in_pieces_is_read_back(client: Client, dialect: Dialect) -> None:
    data = noise(3_000_000)
    chunk = message(f"{dialect.castore}.BlobChunk")
    pieces = [chunk(data=data[at : at + 700_000]) for at in range(0, len(data), 700_000)]
    put = await client.requests(dialect.blob("Put"), pieces, f"{dialect.castore}.PutBlobResponse")
    assert put.digest == Digest.of(data).raw
    request = message(f"{dialect.castore}.ReadBlobRequest")(digest=put.digest)
    answers = await client.answers(dialect.blob("Read"), request, f"{dialect.castore}.BlobChunk")
    assert b"".join(answer.data for answer in answers) == data
    assert max(len(answer.data) for answer in answers) <= 1 << 20


async def test_put_of_one_message_and_put_of_a_stream_are_the_same_method(client: Client, dialect: Dialect) -> None:
    chunk = message(f"{dialect.castore}.BlobChunk")(data=b"x86_64-linux")
    answer = f"{dialect.castore}.PutBlobResponse"
    assert await client.unary(dialect.blob("Put"), chunk, answer) == await client.requests(dialect.blob("Put"), [chunk], answer)


async def test_a_stream_without_messages_is_the_empty_blob(client: Client, dialect: Dialect) -> None:
    put = await client.requests(dialect.blob("Put"), [], f"{dialect.castore}.PutBlobResponse")
    assert put.digest == Digest.of(b"").raw
    request = message(f"{dialect.castore}.ReadBlobRequest")(digest=put.digest)
    assert (
        b"".join(each.data for each in await client.answers(dialect.blob("Read"), request, f"{dialect.castore}.BlobChunk")) == b""
    )


async def test_stat_lists_chunks_only_when_asked_and_a_chunk_can_be_read(client: Client, store: Store, dialect: Dialect) -> None:
    data = noise(2_000_000)
    digest = (await put_file(store.blobs, data)).digest
    answer = f"{dialect.castore}.{'BlobMeta' if dialect is SEED else 'StatBlobResponse'}"
    request = message(f"{dialect.castore}.StatBlobRequest")
    assert not (await client.unary(dialect.blob("Stat"), request(digest=digest.raw, send_bao=True), answer)).ByteSize()
    chunks = (await client.unary(dialect.blob("Stat"), request(digest=digest.raw, send_chunks=True), answer)).chunks
    assert sum(chunk.size for chunk in chunks) == len(data)
    first = message(f"{dialect.castore}.ReadBlobRequest")(digest=chunks[0].digest)
    read = await client.answers(dialect.blob("Read"), first, f"{dialect.castore}.BlobChunk")
    assert b"".join(each.data for each in read) == data[: chunks[0].size]


async def test_a_blob_that_is_its_own_only_chunk_has_no_chunk_list(client: Client, store: Store, dialect: Dialect) -> None:
    digest = (await put_file(store.blobs, b"small")).digest
    answer = f"{dialect.castore}.{'BlobMeta' if dialect is SEED else 'StatBlobResponse'}"
    request = message(f"{dialect.castore}.StatBlobRequest")(digest=digest.raw, send_chunks=True)
    assert list((await client.unary(dialect.blob("Stat"), request, answer)).chunks) == []


async def test_an_absent_blob_is_not_found(client: Client, dialect: Dialect) -> None:
    absent = missing()
    with Refusal(STATUS.NOT_FOUND, f"blob {absent}"):
        await client.unary(
            dialect.blob("Stat"), message(f"{dialect.castore}.StatBlobRequest")(digest=absent.raw), f"{dialect.castore}.BlobChunk"
        )
    with Refusal(STATUS.NOT_FOUND, str(absent)):
        request = message(f"{dialect.castore}.ReadBlobRequest")(digest=absent.raw)
        await client.answers(dialect.blob("Read"), request, f"{dialect.castore}.BlobChunk")


@pytest.mark.parametrize("call", ["Stat", "Read"])
async def test_a_digest_of_a_wrong_length_is_invalid(client: Client, dialect: Dialect, call: str) -> None:
    request = message(f"{dialect.castore}.{call}BlobRequest")(digest=b"short")
    with Refusal(STATUS.INVALID_ARGUMENT, "digest must be 32 bytes, got 5"):
        await client.answers(dialect.blob(call), request, f"{dialect.castore}.BlobChunk")


async def test_only_the_seed_gets_whole_blobs(client: Client, store: Store, dialect: Dialect) -> None:
    digest = (await put_file(store.blobs, b"whole")).digest
    request = message(f"{dialect.castore}.ReadBlobRequest")(digest=digest.raw)
    if dialect is SEED:
        assert (await client.unary(dialect.blob("Get"), request, f"{dialect.castore}.BlobChunk")).data == b"whole"
        with Refusal(STATUS.NOT_FOUND):
            await client.unary(dialect.blob("Get"), type(request)(digest=missing().raw), f"{dialect.castore}.BlobChunk")
    else:
        with Refusal(STATUS.UNIMPLEMENTED, "unknown method"):
            await client.unary(dialect.blob("Get"), request, f"{dialect.castore}.BlobChunk")


async def test_a_blob_over_the_message_limit_must_be_read(client: Client, store: Store) -> None:
    digest = (await put_file(store.blobs, bytes(16 * 1024 * 1024 + 1))).digest
    with Refusal(STATUS.RESOURCE_EXHAUSTED, "use Read"):
        await client.unary(SEED.blob("Get"), message("tvix.store.v1.ReadBlobRequest")(digest=digest.raw), "tvix.store.v1.BlobChunk")


async def test_a_message_over_the_limit_is_refused(client: Client, dialect: Dialect) -> None:
    chunk = message(f"{dialect.castore}.BlobChunk")(data=bytes(16 * 1024 * 1024))
    with Refusal(STATUS.RESOURCE_EXHAUSTED, "over the limit of 16777216"):
        await client.requests(dialect.blob("Put"), [chunk], f"{dialect.castore}.PutBlobResponse")


async def test_empty_pieces_of_a_blob_are_not_kept(client: Client, dialect: Dialect) -> None:
    kind = message(f"{dialect.castore}.BlobChunk")
    put = await client.requests(dialect.blob("Put"), [kind(), kind(data=b"x"), kind()], f"{dialect.castore}.PutBlobResponse")
    assert put.digest == Digest.of(b"x").raw


async def test_the_methods_that_write_are_known(store: Store) -> None:
    methods = serve_store(store)[0].methods
    assert {path for path, method in methods.items() if method.takes.writes} == {
        path for path in methods if path.rpartition("/")[2].startswith(("Put", "Assemble", "ApplyDelta"))
    }


# directories


async def test_a_tree_is_put_leaves_first_and_got_root_first(client: Client, dialect: Dialect) -> None:
    tree = diamond()
    kind = message(f"{dialect.castore}.Directory")
    put = await client.requests(
        dialect.directory("Put"), [kind.FromString(each.encoded) for each in tree], f"{dialect.castore}.PutDirectoryResponse"
    )
    assert put.root_digest == tree[-1].digest.raw
    request = message(f"{dialect.castore}.GetDirectoryRequest")
    only = await client.answers(dialect.directory("Get"), request(digest=put.root_digest), f"{dialect.castore}.Directory")
    assert [each.SerializeToString() for each in only] == [tree[-1].encoded]
    every = await client.answers(
        dialect.directory("Get"), request(digest=put.root_digest, recursive=True), f"{dialect.castore}.Directory"
    )
    assert every[0] == only[0]
    assert sorted(each.SerializeToString() for each in every) == sorted({each.encoded for each in tree})
    assert [each.SerializeToString() for each in every][-1] == tree[0].encoded


async def test_an_absent_directory_is_not_found(client: Client, dialect: Dialect) -> None:
    for recursive in (False, True):
        request = message(f"{dialect.castore}.GetDirectoryRequest")(digest=missing().raw, recursive=recursive)
        with Refusal(STATUS.NOT_FOUND, str(missing())):
            await client.answers(dialect.directory("Get"), request, f"{dialect.castore}.Directory")


async def test_a_directory_request_must_say_what_it_wants(client: Client, dialect: Dialect) -> None:
    with Refusal(STATUS.INVALID_ARGUMENT, "by_what is missing"):
        await client.answers(
            dialect.directory("Get"), message(f"{dialect.castore}.GetDirectoryRequest")(), f"{dialect.castore}.Directory"
        )


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ([], "no directory was sent"),
        ([diamond()[1]], "which was not sent before it"),
        ([diamond()[0], Directory({b"link": SymlinkNode(b"target")})], "not reachable from the last one"),
    ],
)
async def test_a_stream_of_directories_that_is_no_tree_is_refused(
    client: Client, dialect: Dialect, sent: list[Directory], complaint: str
) -> None:
    kind = message(f"{dialect.castore}.Directory")
    with Refusal(STATUS.INVALID_ARGUMENT, complaint):
        await client.requests(
            dialect.directory("Put"), [kind.FromString(each.encoded) for each in sent], f"{dialect.castore}.PutDirectoryResponse"
        )


async def test_a_directory_that_breaks_a_rule_is_refused(client: Client, dialect: Dialect) -> None:
    directory = message(f"{dialect.castore}.Directory")()
    directory.symlinks.add(name=b"a/b", target=b"target")
    with Refusal(STATUS.INVALID_ARGUMENT, "slash"):
        await client.requests(dialect.directory("Put"), [directory], f"{dialect.castore}.PutDirectoryResponse")


# path infos


def path_info(node: FileNode, data: bytes, number: int = 0, signature: str = "") -> PathInfo:
    """A true record of a file."""
    signatures = (Signature(signature, bytes(64)),) if signature else ()
    return PathInfo(StorePath(noise(20, f"{number}"), "package-1.0"), node, file_nar(data), signatures=signatures)


async def test_a_path_info_is_put_got_and_listed(client: Client, store: Store, dialect: Dialect) -> None:
    node = await put_file(store.blobs, b"content")
    infos = sorted((path_info(node, b"content", number) for number in range(5)), key=lambda info: info.store_path.output_hash)
    kind = message(f"{dialect.store}.PathInfo")
    for info in infos:
        stored = await client.unary(dialect.path_info("Put"), kind.FromString(info.encoded), f"{dialect.store}.PathInfo")
        assert stored.SerializeToString() == info.encoded
    request = message(f"{dialect.store}.GetPathInfoRequest")(by_output_hash=infos[0].store_path.output_hash)
    got = await client.unary(dialect.path_info("Get"), request, f"{dialect.store}.PathInfo")
    assert got.SerializeToString() == infos[0].encoded
    every = await client.answers(
        dialect.path_info("List"), message(f"{dialect.store}.ListPathInfoRequest")(), f"{dialect.store}.PathInfo"
    )
    assert [each.SerializeToString() for each in every] == [info.encoded for info in infos]


async def test_putting_a_path_info_again_unites_the_signatures(client: Client, store: Store, dialect: Dialect) -> None:
    node = await put_file(store.blobs, b"content")
    kind = message(f"{dialect.store}.PathInfo")
    for signature in ("first-1", "second-1"):
        encoded = path_info(node, b"content", signature=signature).encoded
        stored = await client.unary(dialect.path_info("Put"), kind.FromString(encoded), f"{dialect.store}.PathInfo")
    assert [each.name for each in stored.narinfo.signatures] == ["first-1", "second-1"]


async def test_an_absent_path_info_is_not_found(client: Client, dialect: Dialect) -> None:
    request = message(f"{dialect.store}.GetPathInfoRequest")(by_output_hash=bytes(20))
    with Refusal(STATUS.NOT_FOUND, "path info 00000000000000000000000000000000"):
        await client.unary(dialect.path_info("Get"), request, f"{dialect.store}.PathInfo")


@pytest.mark.parametrize(
    ("request_fields", "complaint"), [({}, "by_what is missing"), ({"by_output_hash": b"x"}, "20 bytes, got 1")]
)
async def test_a_path_info_request_must_say_what_it_wants(
    client: Client, dialect: Dialect, request_fields: dict[str, bytes], complaint: str
) -> None:
    with Refusal(STATUS.INVALID_ARGUMENT, complaint):
        request = message(f"{dialect.store}.GetPathInfoRequest")(**request_fields)
        await client.unary(dialect.path_info("Get"), request, f"{dialect.store}.PathInfo")


async def test_a_path_info_whose_content_is_absent_fails_its_precondition(client: Client, dialect: Dialect) -> None:
    info = path_info(FileNode(Digest.of(b"content"), 7), b"content")
    with Refusal(STATUS.FAILED_PRECONDITION, str(Digest.of(b"content"))):
        kind = message(f"{dialect.store}.PathInfo")
        await client.unary(dialect.path_info("Put"), kind.FromString(info.encoded), f"{dialect.store}.PathInfo")


async def test_a_path_info_that_is_not_true_is_refused(client: Client, store: Store, dialect: Dialect) -> None:
    info = path_info(await put_file(store.blobs, b"content"), b"CONTENT")
    with Refusal(STATUS.INVALID_ARGUMENT, "nar_sha256"):
        kind = message(f"{dialect.store}.PathInfo")
        await client.unary(dialect.path_info("Put"), kind.FromString(info.encoded), f"{dialect.store}.PathInfo")


async def test_the_nar_of_a_node_is_calculated(client: Client, store: Store, dialect: Dialect) -> None:
    encoded = encode_node(b"any name", await put_file(store.blobs, b"content"))
    node = message("snix.castore.v1.Entry" if dialect.store.startswith("snix") else f"{dialect.store}.Node").FromString(encoded)
    answer = await client.unary(dialect.path_info("CalculateNAR"), node, f"{dialect.store}.CalculateNARResponse")
    assert (answer.nar_size, answer.nar_sha256) == (file_nar(b"content").size, file_nar(b"content").sha256)


async def test_the_nar_of_an_absent_node_is_not_found(client: Client, dialect: Dialect) -> None:
    node = message("tvix.castore.v1.Node")(file={"digest": missing().raw, "size": 3})
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await client.unary(dialect.path_info("CalculateNAR"), node, f"{dialect.store}.CalculateNARResponse")


async def test_the_nar_of_no_node_is_invalid(client: Client, dialect: Dialect) -> None:
    with Refusal(STATUS.INVALID_ARGUMENT, "neither directory, file nor symlink"):
        node = message("tvix.castore.v1.Node")()
        await client.unary(dialect.path_info("CalculateNAR"), node, f"{dialect.store}.CalculateNARResponse")


# many blobs at once

BLOBS = [noise(size, f"{number}") for number, size in enumerate([0, 1, 100, 70_000, 262_144] * 20)]


async def test_many_blobs_are_put_and_got_in_order(client: Client) -> None:
    kind = message("tvix_store.v1.Blobs")
    digests = await client.requests(
        "/tvix_store.v1.BulkService/PutMany", [kind(data=BLOBS[:30]), kind(), kind(data=BLOBS[30:])], "tvix_store.v1.Digests"
    )
    assert list(digests.digest) == [Digest.of(blob).raw for blob in BLOBS]
    answers = await client.answers("/tvix_store.v1.BulkService/GetMany", digests, "tvix_store.v1.Blobs")
    assert [blob for answer in answers for blob in answer.data] == BLOBS
    assert max(answer.ByteSize() for answer in answers) < 1_100_000
    assert len(answers) < 12


async def test_a_blob_too_large_for_bulk_is_refused_both_ways(client: Client, store: Store) -> None:
    large = noise(262_145)
    with Refusal(STATUS.INVALID_ARGUMENT, "262145"):
        await client.requests(
            "/tvix_store.v1.BulkService/PutMany", [message("tvix_store.v1.Blobs")(data=[large])], "tvix_store.v1.Digests"
        )
    digest = await store.blobs.put(stream([large]))
    with Refusal(STATUS.RESOURCE_EXHAUSTED, str(digest)):
        request = message("tvix_store.v1.Digests")(digest=[digest.raw])
        await client.answers("/tvix_store.v1.BulkService/GetMany", request, "tvix_store.v1.Blobs")


async def test_many_blobs_of_which_one_is_absent_are_not_found(client: Client, store: Store) -> None:
    there = (await put_file(store.blobs, b"there")).digest
    request = message("tvix_store.v1.Digests")(digest=[there.raw, missing().raw])
    with Refusal(STATUS.NOT_FOUND, str(missing())):
        await client.answers("/tvix_store.v1.BulkService/GetMany", request, "tvix_store.v1.Blobs")
    absent = await client.unary("/tvix_store.v1.BulkService/Missing", request, "tvix_store.v1.Digests")
    assert list(absent.digest) == [missing().raw]

"""The message codecs, held against the protobuf runtime with our own descriptors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rpc.schema import message
from tools.compile_protos import DESCRIPTORS, compile_protos
from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.chunk_table import ChunkTable
from tvix_store.model.digest import Digest
from tvix_store.model.directory import SizeRule
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.protocol import blobs, bulk, chunk_tables, directories, path_infos, statistics
from tvix_store.protocol import settings as protocol_settings
from tvix_store.protocol.chunk_tables import MAX_CONTENT, ChunkList
from tvix_store.protocol.dialects import DIALECTS, SEED, TVIX, Dialect
from tvix_store.protocol.settings import StoreSettings
from tvix_store.services.statistics import Stats

digests = st.binary(min_size=32, max_size=32).map(Digest)
sizes = st.integers(0, wire.MAX_UINT64)
data = st.binary(max_size=300)
dialects = st.sampled_from(DIALECTS)
unknown_fields = st.sampled_from([b"", b"\x78\x05", b"\x7a\x02hi", b"\x7d\x00\x00\x00\x00"])


def test_the_shipped_descriptors_are_the_compiled_protos() -> None:
    assert DESCRIPTORS.read_bytes() == compile_protos(), "run: python tools/compile_protos.py"


@given(digests, dialects, unknown_fields)
def test_a_digest_message_is_what_protobuf_makes_of_it(digest: Digest, dialect: Dialect, unknown: bytes) -> None:
    request = message(f"{dialect.castore}.ReadBlobRequest")(digest=digest.raw)
    assert blobs.encode_digest(digest) == request.SerializeToString()
    assert blobs.decode_digest(request.SerializeToString() + unknown) == digest


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_digest_of_another_length_is_refused(length: int) -> None:
    request = message("tvix.castore.v1.ReadBlobRequest")(digest=b"x" * length)
    with pytest.raises(InvalidError, match=f"digest must be 32 bytes, got {length}"):
        blobs.decode_digest(request.SerializeToString())


@given(data, dialects, unknown_fields)
def test_a_blob_chunk_is_what_protobuf_makes_of_it(data: bytes, dialect: Dialect, unknown: bytes) -> None:
    chunk = message(f"{dialect.castore}.BlobChunk")(data=data)
    assert blobs.encode_chunk(data) == chunk.SerializeToString()
    assert blobs.decode_chunk(unknown + chunk.SerializeToString() + unknown) == data


@given(digests, st.booleans(), st.booleans(), dialects)
def test_a_stat_request_is_what_protobuf_makes_of_it(digest: Digest, chunks: bool, bao: bool, dialect: Dialect) -> None:
    request = message(f"{dialect.castore}.StatBlobRequest")(digest=digest.raw, send_chunks=chunks, send_bao=bao)
    assert blobs.decode_stat_request(request.SerializeToString()) == (digest, chunks)
    if not bao:
        assert blobs.encode_stat_request(digest, chunks=chunks) == request.SerializeToString()


@given(st.lists(st.tuples(digests, sizes), max_size=5), dialects)
def test_a_stat_answer_is_what_protobuf_makes_of_it(chunks: list[tuple[Digest, int]], dialect: Dialect) -> None:
    answer = message(f"{dialect.castore}.{'BlobMeta' if dialect is SEED else 'StatBlobResponse'}")()
    for digest, size in chunks:
        answer.chunks.add(digest=digest.raw, size=size)
    assert blobs.encode_stat(dialect, chunks) == answer.SerializeToString()
    assert blobs.decode_stat(dialect, answer.SerializeToString()) == chunks


def test_the_bao_of_a_stat_answer_is_not_taken_for_a_chunk() -> None:
    assert blobs.decode_stat(SEED, message("tvix.store.v1.BlobMeta")(inline_bao=b"tree").SerializeToString()) == []
    assert blobs.decode_stat(TVIX, message("tvix.castore.v1.StatBlobResponse")(bao=b"tree").SerializeToString()) == []


@given(digests, st.booleans(), dialects)
def test_a_directory_request_is_what_protobuf_makes_of_it(digest: Digest, recursive: bool, dialect: Dialect) -> None:
    request = message(f"{dialect.castore}.GetDirectoryRequest")(digest=digest.raw, recursive=recursive)
    assert directories.encode_get_directory(digest, recursive=recursive) == request.SerializeToString()
    assert directories.decode_get_directory(request.SerializeToString()) == (digest, recursive)


def test_a_directory_request_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidError, match="by_what is missing"):
        directories.decode_get_directory(message("snix.castore.v1.GetDirectoryRequest")(recursive=True).SerializeToString())


@given(st.binary(min_size=20, max_size=20), dialects, unknown_fields)
def test_a_path_info_request_is_what_protobuf_makes_of_it(output_hash: bytes, dialect: Dialect, unknown: bytes) -> None:
    request = message(f"{dialect.store}.GetPathInfoRequest")(by_output_hash=output_hash)
    assert path_infos.encode_get_path_info(output_hash) == request.SerializeToString()
    assert path_infos.decode_get_path_info(request.SerializeToString() + unknown) == output_hash


def test_a_path_info_request_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidError, match="by_what is missing"):
        path_infos.decode_get_path_info(b"")


@pytest.mark.parametrize("length", [0, 19, 21])
def test_an_output_hash_of_another_length_is_refused(length: int) -> None:
    request = message("snix.store.v1.GetPathInfoRequest")(by_output_hash=b"x" * length)
    with pytest.raises(InvalidError, match=f"by_output_hash must be 20 bytes, got {length}"):
        path_infos.decode_get_path_info(request.SerializeToString())


@given(sizes, st.binary(min_size=32, max_size=32), dialects)
def test_nar_facts_are_what_protobuf_makes_of_them(size: int, sha256: bytes, dialect: Dialect) -> None:
    answer = message(f"{dialect.store}.CalculateNARResponse")(nar_size=size, nar_sha256=sha256)
    assert path_infos.encode_nar_facts(NarFacts(size, sha256)) == answer.SerializeToString()
    assert path_infos.decode_nar_facts(answer.SerializeToString()) == NarFacts(size, sha256)


@given(st.lists(data, max_size=5), unknown_fields)
def test_many_blobs_are_what_protobuf_makes_of_them(many: list[bytes], unknown: bytes) -> None:
    expected = message("tvix_store.v1.Blobs")(data=many).SerializeToString()
    assert bulk.encode_blobs(many) == expected
    assert bulk.decode_blobs(expected + unknown) == many


@given(st.lists(digests, max_size=5), unknown_fields)
def test_many_digests_are_what_protobuf_makes_of_them(many: list[Digest], unknown: bytes) -> None:
    expected = message("tvix_store.v1.Digests")(digest=[digest.raw for digest in many]).SerializeToString()
    assert bulk.encode_digests(many) == expected
    assert bulk.decode_digests(expected + unknown) == many


@given(st.lists(st.binary(min_size=20, max_size=20), max_size=5, unique=True), unknown_fields)
def test_output_hashes_and_store_paths_are_what_protobuf_makes_of_them(hashes: list[bytes], unknown: bytes) -> None:
    expected = message("tvix_store.v1.OutputHashes")(output_hash=hashes).SerializeToString()
    assert bulk.encode_output_hashes(hashes) == expected
    assert bulk.decode_output_hashes(expected * 2 + unknown) == hashes
    paths = [StorePath(each, "name") for each in hashes]
    expected = message("tvix_store.v1.StorePaths")(store_path=map(str, paths)).SerializeToString()
    assert bulk.encode_store_paths(paths) == expected
    assert bulk.decode_store_paths(expected + unknown) == paths


rows = st.lists(st.tuples(digests.map(lambda digest: digest.raw), sizes, sizes), max_size=5)
stored_chunks = st.lists(st.tuples(digests.map(lambda digest: digest.raw), st.integers(0, MAX_CONTENT // 5), data), max_size=5)


@given(rows, unknown_fields)
def test_sized_digests_are_what_protobuf_makes_of_them(rows: list[tuple[bytes, int, int]], unknown: bytes) -> None:
    table = replace(ChunkTable.of(rows), stored=b"")
    expected = message("tvix_store.v1.SizedDigests")(digests=table.digests, size=[size for _, size, _ in rows]).SerializeToString()
    assert chunk_tables.encode_sized_digests(table) == expected
    assert chunk_tables.decode_sized_digests(expected + unknown) == table
    assert list(table) == [(digest, size, size) for digest, size, _ in rows]


@given(st.lists(st.tuples(digests, rows, st.booleans(), st.booleans()), max_size=4), unknown_fields)
def test_lists_of_chunks_are_what_protobuf_makes_of_them(
    listed: list[tuple[Digest, list[tuple[bytes, int, int]], bool, bool]], unknown: bytes
) -> None:
    lists: list[ChunkList] = []
    expected = message("tvix_store.v1.ChunkLists")()
    for blob, rows, more, tells_stored in listed:
        table = ChunkTable.of(rows)
        lists.append(ChunkList(blob, table if tells_stored else replace(table, stored=b""), more))
        expected.list.add(
            blob=blob.raw,
            digests=table.digests,
            length=[length for _, length, _ in rows],
            stored=[stored for _, _, stored in rows] if tells_stored else [],
            more=more,
        )
    assert chunk_tables.encode_chunk_lists(lists) == expected.SerializeToString()
    assert chunk_tables.decode_chunk_lists(expected.SerializeToString() + unknown) == lists


@given(stored_chunks, unknown_fields)
def test_chunks_are_what_protobuf_makes_of_them(chunks: list[tuple[bytes, int, bytes]], unknown: bytes) -> None:
    expected = message("tvix_store.v1.Chunks")(
        digests=b"".join(digest for digest, _, _ in chunks),
        length=[length for _, length, _ in chunks],
        stored=[len(stored) for _, _, stored in chunks],
        data=b"".join(stored for _, _, stored in chunks),
    ).SerializeToString()
    assert b"".join(chunk_tables.encode_chunks(chunks)) == expected
    assert [(*chunk[:2], bytes(chunk[2])) for chunk in chunk_tables.decode_chunks(expected + unknown)] == chunks


@pytest.mark.parametrize(
    "fields",
    [
        {"digests": b"x" * 31, "length": [1], "stored": [1], "data": b"x"},
        {"digests": b"x" * 64, "length": [1], "stored": [1], "data": b"x"},
        {"digests": b"x" * 32, "length": [1, 2], "stored": [1], "data": b"x"},
        {"digests": b"x" * 32, "length": [1], "stored": [1, 0], "data": b"x"},
        {"digests": b"x" * 32, "length": [1], "stored": [1], "data": b"xx"},
        {"digests": b"x" * 32, "length": [2], "stored": [2], "data": b"x"},
        {"digests": b"x" * 32, "length": [MAX_CONTENT + 1], "stored": [1], "data": b"x"},
    ],
    ids=[
        "half a digest",
        "a length too few",
        "a length too many",
        "a stored length too many",
        "more data",
        "less data",
        "too long",
    ],
)
def test_chunks_whose_columns_do_not_belong_together_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        chunk_tables.decode_chunks(message("tvix_store.v1.Chunks")(**fields).SerializeToString())


@given(digests, sizes, unknown_fields)
def test_a_request_for_a_chunk_is_what_protobuf_makes_of_it(digest: Digest, length: int, unknown: bytes) -> None:
    expected = message("tvix_store.v1.GetChunkRequest")(digest=digest.raw, length=length).SerializeToString()
    assert chunk_tables.encode_get_chunk(digest, length) == expected
    assert chunk_tables.decode_get_chunk(expected + unknown) == (digest, length)


@given(st.lists(sizes, min_size=statistics.COUNTS, max_size=statistics.COUNTS), unknown_fields)
def test_statistics_are_what_protobuf_makes_of_them(counts: list[int], unknown: bytes) -> None:
    names = [field.name for field in fields(Stats)]
    expected = message("tvix_store.v1.Statistics")(**dict(zip(names, counts, strict=True))).SerializeToString()
    assert statistics.encode_statistics(counts) == expected
    assert statistics.decode_statistics(expected + unknown) == counts


@given(st.sampled_from(SizeRule), st.sampled_from(["/nix/store", "/gnu/store", "/"]), st.integers(0, 9), unknown_fields)
def test_settings_are_what_protobuf_makes_of_them(rule: SizeRule, store_dir: str, version: int, unknown: bytes) -> None:
    expected = message("tvix_store.v1.Settings")(
        size_rule=f"SIZE_RULE_{rule.name}", store_dir=store_dir, bulk_version=version
    ).SerializeToString()
    assert protocol_settings.encode_settings(StoreSettings(rule, store_dir, version)) == expected
    assert protocol_settings.decode_settings(expected + unknown) == StoreSettings(rule, store_dir, version)


@given(st.binary(max_size=40))
def test_garbage_is_refused_in_one_way_only(garbage: bytes) -> None:
    for decode in (
        blobs.decode_digest,
        blobs.decode_chunk,
        blobs.decode_stat_request,
        directories.decode_get_directory,
        path_infos.decode_get_path_info,
        path_infos.decode_nar_facts,
        bulk.decode_blobs,
        bulk.decode_digests,
        bulk.decode_output_hashes,
        bulk.decode_store_paths,
        chunk_tables.decode_sized_digests,
        chunk_tables.decode_chunk_lists,
        chunk_tables.decode_chunks,
        chunk_tables.decode_get_chunk,
        statistics.decode_statistics,
        protocol_settings.decode_settings,
    ):
        try:
            decode(garbage)
        except InvalidError:
            continue


@pytest.mark.parametrize(
    "decode",
    [
        blobs.decode_digest,
        blobs.decode_chunk,
        blobs.decode_stat_request,
        directories.decode_get_directory,
        path_infos.decode_get_path_info,
        path_infos.decode_nar_facts,
        statistics.decode_statistics,
    ],
)
@pytest.mark.parametrize("field", [b"\x0a\x00", b"\x78\x00"], ids=["singular", "unknown"])
def test_a_message_without_repeated_fields_has_few(decode: Callable[[bytes], object], field: bytes) -> None:
    with pytest.raises(InvalidError, match="more than 64 fields"):
        decode(field * 65)


@pytest.mark.parametrize("decode", [bulk.decode_blobs, bulk.decode_digests])
def test_a_message_names_a_bounded_number_of_blobs(decode: Callable[[bytes], list[object]]) -> None:
    most = b"\x0a\x20" + bytes(32)
    assert len(decode(most * bulk.MAX_BLOBS)) == bulk.MAX_BLOBS
    with pytest.raises(InvalidError, match=f"more than {bulk.MAX_BLOBS} fields"):
        decode(most * (bulk.MAX_BLOBS + 1))

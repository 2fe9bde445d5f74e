"""The formats of the packed layout: what is written is read again, and damage is seen. Which ranges are read for some places."""

from __future__ import annotations

import struct

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tvix_store.backends.objectstore.packed.chunk_lists import SEGMENT_CHUNKS, ChunkListBuilder, ChunkListSegment
from tvix_store.backends.objectstore.packed.contents import Content, Kind, NarRow, Place
from tvix_store.backends.objectstore.packed.pack import (
    COMMITS,
    LARGEST_RECORD,
    Footer,
    PackPart,
    commit_key,
    commit_time,
    data_key,
    footer_size,
    later_than,
)
from tvix_store.backends.objectstore.packed.spans import LONGEST, spans_of, sweep_of
from tvix_store.backends.objectstore.packed.tree_object import TreeObject
from tvix_store.errors import CorruptError
from tvix_store.model.digest import Digest
from tvix_store.model.path_info import NarFacts

DIGESTS = st.binary(min_size=32, max_size=32)
SMALL = st.integers(0, 2**32 - 1)
CONTENTS = st.builds(
    lambda kind, digest, stored, length, start, size: Content(
        kind, digest, stored, length, *((start, size) if kind == Kind.LIST else (0, 0))
    ),
    st.sampled_from(Kind),
    DIGESTS,
    st.binary(max_size=9),
    st.integers(0, LARGEST_RECORD),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
NARS = st.builds(NarRow, DIGESTS, st.builds(NarFacts, st.integers(0, 2**63 - 1), DIGESTS))
SLOT = 1 << 20
PLACES = st.lists(
    st.builds(
        lambda key, slot, stored: Place(key, slot * SLOT, stored, 0),
        st.sampled_from("ab"),
        st.integers(0, 40),
        st.integers(0, SLOT),
    ),
    max_size=30,
    unique_by=lambda place: (place.key, place.offset),
)


@settings(max_examples=40)
@given(st.lists(st.lists(CONTENTS, max_size=4), min_size=1, max_size=3), st.lists(NARS, max_size=2), st.integers(0, 2**31))
def test_a_footer_reads_as_it_was_written(packs: list[list[Content]], nars: list[NarRow], offset: int) -> None:
    parts = [PackPart("" if number == 0 else data_key(), offset if number else 0) for number in range(len(packs))]
    for part, contents in zip(parts, packs, strict=True):
        for content in contents:
            part.add(content)
    read = Footer.decode(Footer(parts, nars).encode(), "it")
    assert list(read.entries("itself")) == list(Footer(parts).entries("itself"))
    assert list(read.nars) == nars


def test_every_flip_and_cut_of_a_footer_is_seen() -> None:
    part = PackPart("")
    part.add(Content(Kind.CHUNK, bytes(32), b"content", 7))
    encoded = Footer([part]).encode()
    for at in range(len(encoded)):
        with pytest.raises(CorruptError):
            Footer.decode(encoded[:at], "it")
        with pytest.raises(CorruptError):
            Footer.decode(encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :], "it")


@given(st.integers(0, 2**47), SMALL)
def test_a_key_of_a_commit_tells_its_time_and_its_footer(time: int, size: int) -> None:
    key = commit_key(time, size)
    assert (commit_time(key), footer_size(key)) == (time, size)
    assert footer_size(key[:-1]) is None
    assert footer_size(key.replace("-", "_")) is None


def test_no_key_makes_the_next_one_longer() -> None:
    assert later_than("") == 0
    assert later_than(commit_key(7, 1)) == 8
    for time in (2**47 - 1, 2**47, 2**48 - 1):
        assert footer_size(commit_key(later_than(commit_key(time, 1)), 1)) == 1


@pytest.mark.parametrize(
    "key", ["+1234567890a-00000001-", "00000000000a-0x000001-", "00000000000a-_0000001-", "00000000000A-00000001-"]
)
def test_a_key_with_odd_digits_is_none(key: str) -> None:
    assert footer_size(f"{COMMITS}/{key}{'a' * 16}") is None


def _as_written(magic: bytes, body: bytes) -> bytes:
    """A footer or a tree object whose checksum is right."""
    packed = zstandard.compress(body)
    return magic + blake3(packed).digest(length=16) + packed


def _one_record(**changed: int) -> bytes:
    """The columns of a footer with one record, or those of another one."""
    counts = {"packs": 1, "count": 1, "segments": 0, "nars": 0}
    said = {**counts, "offset": 0, "entries": 1, "kind": 1, "stored": 7, "length": 7, **changed}
    head = struct.pack("<IIII", *(said[each] for each in counts))
    pack = struct.pack("<16sII", bytes(16), said["offset"], said["entries"])
    return head + pack + struct.pack("<BII", said["kind"], said["stored"], said["length"]) + bytes(32)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short",
        _one_record(count=2),
        _one_record(count=2**32 - 1),
        _one_record(packs=2**32 - 1),
        _one_record(nars=1),
        _one_record(entries=0),
        _one_record(entries=2),
        _one_record(kind=0),
        _one_record(kind=9),
        _one_record(kind=3),
        _one_record(stored=2**32 - 1),
        _one_record(length=2**32 - 1),
        struct.pack("<IIII", 1, 2, 0, 0)
        + struct.pack("<16sII", bytes(16), 2**32 - 1, 2)
        + struct.pack("<BBIIII", 1, 1, 9, 9, 9, 9)
        + bytes(64),
        bytes(8 << 20),
    ],
)
def test_a_footer_that_somebody_has_made_up_is_none(body: bytes) -> None:
    assert [len(part) for part in Footer.decode(_as_written(b"tvxF\x01", _one_record()), "it").parts] == [1]
    with pytest.raises(CorruptError):
        Footer.decode(_as_written(b"tvxF\x01", body), "it")


def test_a_footer_that_is_no_frame_is_none() -> None:
    for packed in (b"", b"garbage", zstandard.ZstdCompressor(write_content_size=False).compress(_one_record())):
        with pytest.raises(CorruptError):
            Footer.decode(b"tvxF\x01" + blake3(packed).digest(length=16) + packed, "it")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("<IIII", 0, 0, 0, 2**32 - 1),
        struct.pack("<IIII", 0, 0, 2**32 - 1, 0),
        struct.pack("<IIII", 2**32 - 1, 0, 0, 0),
        struct.pack("<IIII", 0, 1, 0, 0) + b"\x03\xff\xff\xff",  # no text
        struct.pack("<IIII", 0, 1, 0, 0) + b"\x09records/x",
        struct.pack("<IIIIIqII", 0, 0, 1, 0, 0, 0, 7, 7) + bytes(32),  # no pack
        struct.pack("<IIII", 0, 1, 1, 0) + b"\x25" + data_key().encode() + struct.pack("<IqII", 0, -1, 7, 7) + bytes(32),
        struct.pack("<IIII", 0, 1, 1, 0) + b"\x25" + data_key().encode() + struct.pack("<IqII", 0, 0, 7, 2**31) + bytes(32),
        struct.pack("<IIII", 0, 0, 0, 1) + bytes(32) + struct.pack("<II", 1, 0),  # no chunk
    ],
)
def test_a_tree_object_that_somebody_has_made_up_is_none(body: bytes) -> None:
    with pytest.raises(CorruptError):
        TreeObject.decode(_as_written(b"tvxT\x01", body), "it")


def test_keys_are_sorted_by_time() -> None:
    keys = [commit_key(time, 1) for time in (0, 1, 255, 256, 10**12, 10**13)]
    assert keys == sorted(keys)


@pytest.mark.parametrize("count", [0, 1, 2, SEGMENT_CHUNKS, SEGMENT_CHUNKS + 1, 2 * SEGMENT_CHUNKS + 5])
def test_a_chunk_list_reads_as_it_was_written(count: int) -> None:
    chunks = [(Digest.of(b"%d" % number).raw, number + 1) for number in range(count)]
    listed = ChunkListBuilder()
    for digest, length in chunks:
        listed.add(digest, length)
    contents = list(listed.segments(b"b" * 32))
    segments = [ChunkListSegment.decode(each.stored, b"b" * 32) for each in reversed(contents)]
    assert [each for segment in segments for each in segment.entries] == (chunks if count > 1 else [])
    assert [segment.start for segment in segments] == [content.start for content in reversed(contents)]
    assert not contents or contents[-1].start == 0
    assert all(segment.size == listed.size for segment in segments)
    for content in contents:
        with pytest.raises(CorruptError):
            ChunkListSegment.decode(content.stored, b"c" * 32)
        with pytest.raises(CorruptError):
            ChunkListSegment.decode(bytes(content.stored)[:-1], b"b" * 32)


def test_a_tree_object_reads_as_it_was_written() -> None:
    encoded = [b"directory %d" % number for number in range(3)]
    packs = data_key(), commit_key(1, 1)
    chunks = {Digest.of(b"%d" % n).raw: Place(packs[n % 2], n * 1000 - n, 900, 1000 + n) for n in range(10)}
    digests = list(chunks)
    tree = TreeObject({Digest.of(each).raw: each for each in encoded}, chunks, {bytes(32): digests[2:5], b"1" * 32: digests[3:4]})
    data = tree.encode()
    assert TreeObject.decode(data, "it") == tree
    assert list(TreeObject.decode(data, "it").chunks) == digests
    for at in range(0, len(data), 7):
        with pytest.raises(CorruptError):
            TreeObject.decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "it")
    assert TreeObject.decode(TreeObject({}, {}, {}).encode(), "it") == TreeObject({}, {}, {})


@settings(max_examples=60)
@given(PLACES)
def test_spans_cover_all_places_and_waste_little(places: list[Place]) -> None:
    spans = spans_of(places)
    for place in places:
        assert not place.stored or any(
            span.key == place.key and span.start <= place.offset and place.end <= span.end for span in spans
        )
    for span in spans:
        wanted = sum(each.stored for each in places if each.key == span.key and span.start <= each.offset < span.end)
        assert span.end - span.start <= min(LONGEST, 2 * wanted)
    assert {*sweep_of(places)} == {*spans}

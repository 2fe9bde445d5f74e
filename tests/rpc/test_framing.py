"""The stream of messages: how it is cut does not matter, and what is wrong with it is refused before it costs anything."""

from __future__ import annotations

import gzip
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.errors import ExhaustedError
from tvix_store.rpc.framing import Frames, frame, gzip_frame
from tvix_store.rpc.status import RpcError, Status
from tvix_store.testing.content import noise

LIMIT = 1000


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_however_a_stream_is_cut_its_messages_are_the_same(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frame(message) for message in messages)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)) | {0, len(stream)})
    frames = Frames(LIMIT)
    found = [message for start, end in pairwise(cuts) for message in frames.feed(stream[start:end])]
    frames.finish()
    assert found == messages


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_compressed_and_plain_messages_may_follow_each_other(messages: list[bytes]) -> None:
    stream = b"".join(frame(message) + gzip_frame(message) for message in messages)
    assert list(Frames(LIMIT, b"gzip").feed(stream)) == [message for message in messages for _ in range(2)]


def test_a_message_over_the_limit_is_refused_before_it_is_there() -> None:
    tracemalloc.start()
    with pytest.raises(ExhaustedError, match="a message of 4294967295 bytes is over the limit of 1000"):
        list(Frames(LIMIT).feed(b"\0\xff\xff\xff\xff"))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_message_at_the_limit_passes() -> None:
    assert list(Frames(LIMIT).feed(frame(b"x" * LIMIT))) == [b"x" * LIMIT]


def test_a_message_that_comes_byte_by_byte_takes_little_more_memory_than_its_bytes() -> None:
    size = 100_000
    frames = Frames(size)
    tracemalloc.start()
    for byte in frame(noise(size))[:-1]:
        assert not list(frames.feed(bytes([byte])))
    assert tracemalloc.get_traced_memory()[0] < 4 * size
    tracemalloc.stop()
    assert list(frames.feed(noise(size)[-1:])) == [noise(size)]


def test_a_message_over_the_limit_when_decompressed_is_refused() -> None:
    bomb = gzip.compress(bytes(1 << 26))
    stream = b"\1" + len(bomb).to_bytes(4) + bomb
    tracemalloc.start()
    with pytest.raises(ExhaustedError, match="when decompressed"):
        list(Frames(1 << 20, b"gzip").feed(stream))
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("stream", "encoding", "complaint"),
    [
        (b"\1\0\0\0\1x", b"identity", "flags 0x01"),
        (b"\x80\0\0\0\1x", b"gzip", "flags 0x80"),
        (b"\1\0\0\0\5hello", b"gzip", "not gzip"),
        (gzip_frame(b"hello")[:-4], b"gzip", "ends in the middle"),
        (b"\1\0\0\0\x0a" + gzip_frame(b"hello")[5:15], b"gzip", "not one whole gzip stream"),
        (b"\0\0\0", b"identity", "ends in the middle"),
        (b"\0\0\0\0\5four", b"identity", "ends in the middle"),
    ],
)
def test_garbage_is_an_internal_error_that_says_what_is_wrong(stream: bytes, encoding: bytes, complaint: str) -> None:
    with pytest.raises(RpcError, match=complaint) as caught:
        _read(Frames(LIMIT, encoding), stream)
    assert caught.value.status == Status.INTERNAL


def test_two_gzip_streams_in_one_message_are_refused() -> None:
    body = gzip.compress(b"one") + gzip.compress(b"two")
    with pytest.raises(RpcError, match="not one whole gzip stream"):
        list(Frames(LIMIT, b"gzip").feed(b"\1" + len(body).to_bytes(4) + body))


def test_an_unknown_encoding_is_unimplemented() -> None:
    with pytest.raises(RpcError, match="use identity,gzip") as caught:
        Frames(LIMIT, b"snappy")
    assert caught.value.status == Status.UNIMPLEMENTED


def _read(frames: Frames, stream: bytes) -> list[bytes]:
    messages = list(frames.feed(stream))
    frames.finish()
    return messages

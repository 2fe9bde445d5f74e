"""Hostile streams: little memory, and an end."""

import re
import subprocess
import sys

import pytest

from tests.compression.samples import FORMATS, compress, lzip
from tests.compression.samples import decompress as decompress_all
from tvix_store.compression import MAX_WINDOW, decompressor
from tvix_store.errors import ExhaustedError, InvalidError

MEBIBYTE = 1 << 20
READ_A_BOMB = """
import resource, sys
from tvix_store.compression import decompressor
name = sys.argv[1]
stream, bomb = decompressor(name), sys.stdin.buffer.read()
next(decompressor(name).feed(bomb))  # what the library itself takes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(map(len, stream.feed(bomb)))
stream.finish()
print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_decompressed_in_bounded_memory(name: str) -> None:
    bomb = compress(name, bytes(96 * MEBIBYTE))
    ran = subprocess.run([sys.executable, "-c", READ_A_BOMB, name], input=bomb, stdout=subprocess.PIPE, check=True)
    size, kibibytes = map(int, ran.stdout.split())
    assert size == 96 * MEBIBYTE
    assert kibibytes < 20 * 1024


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_is_refused_by_what_it_makes_of_a_byte(name: str) -> None:
    bomb = compress(name, bytes(16 * MEBIBYTE))
    pieces: list[bytes] = []
    stream = decompressor(name, max_ratio=200, ratio_from=MEBIBYTE)
    with pytest.raises(ExhaustedError, match=rf"^{name}: {len(bomb)} bytes of compressed data make more than \d+ bytes, over 200"):
        pieces.extend(stream.feed(bomb))
    assert sum(map(len, pieces)) <= max(MEBIBYTE, len(bomb) * 200)


@pytest.mark.parametrize("name", ["none", *FORMATS])
def test_a_stream_that_makes_more_than_the_caller_wants_is_refused(name: str) -> None:
    stream = decompressor(name, max_output=3 * MEBIBYTE - 1)
    with pytest.raises(ExhaustedError, match=rf"^{name}: the compressed data makes more than 3145727 bytes$"):
        list(stream.feed(compress(name, bytes(3 * MEBIBYTE))))


@pytest.mark.parametrize("name", ["gzip", "xz", "zstd", "lz4", "lzip", "lzma"])
def test_a_sparse_file_of_any_size_is_no_bomb(name: str) -> None:
    stream = decompressor(name, ratio_from=0)
    assert sum(map(len, stream.feed(compress(name, bytes(48 * MEBIBYTE))))) == 48 * MEBIBYTE
    stream.finish()


def xz_with_dictionary(code: int) -> bytes:
    """The beginning of an xz stream whose block header asks for a dictionary, with the codes of the format."""
    from zlib import crc32

    header = bytes((2, 0, 0x21, 1, code, 0, 0, 0))
    flags = b"\0\4"
    return b"\xfd7zXZ\0" + flags + crc32(flags).to_bytes(4, "little") + header + crc32(header).to_bytes(4, "little") + b"\1\0\0x\0"


HUGE = {
    "zstd": b"\x28\xb5\x2f\xfd\0" + bytes([18 << 3]) + b"\x01\0\0",  # a window of 256 MiB
    "xz": xz_with_dictionary(40),  # 4 GiB
    "lzma": b"\x5d" + (1 << 30).to_bytes(4, "little") + b"\xff" * 8 + bytes(20),
    "lzip": lzip(b"content", dictionary=28),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_stream_that_asks_for_a_huge_window_is_refused(name: str) -> None:
    with pytest.raises(ExhaustedError, match=rf"^{name}: decompressing takes .*memory"):
        decompress_all(name, HUGE[name])


def test_brotli_with_a_large_window_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"^br: "):
        decompress_all("br", b"\x11\x1e" + bytes(20))


@pytest.mark.parametrize("name", ["zstd", "lzip"])
def test_the_largest_window_is_taken(name: str) -> None:
    frame = {"zstd": b"\x28\xb5\x2f\xfd\0" + bytes([17 << 3]) + b"\x09\0\0x", "lzip": lzip(b"x", dictionary=27)}[name]
    assert MAX_WINDOW == 1 << 27
    assert decompress_all(name, frame) == b"x"


@pytest.mark.parametrize("name", ["zstd", "gzip", "lz4"])
@pytest.mark.timeout(30)
def test_a_mebibyte_of_empty_frames_takes_seconds_not_minutes(name: str) -> None:
    frame = compress(name, b"")
    assert decompress_all(name, frame * (MEBIBYTE // len(frame))) == b""


def test_an_error_says_where_the_limit_counts_from() -> None:
    with pytest.raises(ExhaustedError, match=re.escape("over 2 for each (counted from 10 bytes)")):
        list(decompressor("zstd", max_ratio=2, ratio_from=10).feed(compress("zstd", bytes(1000))))

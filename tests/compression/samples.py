"""Compressed streams for tests, made by the libraries' own compressors where they have one, and by hand where not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Iterable
from typing import cast

import brotli
import lz4.frame
import zstandard

from tvix_store.compression import Decompressor, decompressor

SKIPPABLE = struct.pack("<II", 0x184D2A53, 5) + b"extra"
"""A frame that decompressors of zstd and of lz4 skip."""
TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(3000))


def lzip(data: bytes, dictionary: int = 20) -> bytes:
    """A member of lzip with `data`; the dictionary's size is coded as in the header."""
    parameters = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 3, "lp": 0, "pb": 2}
    # The standard library writes the end marker in the old format only, behind 13 bytes of header.
    body = lzma.compress(data, lzma.FORMAT_ALONE, filters=[parameters])[13:]
    return b"LZIP\x01" + bytes([dictionary]) + body + struct.pack("<IQQ", zlib.crc32(data), len(data), len(body) + 26)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def compress(name: str, data: bytes) -> bytes:
    """One frame, member or stream with `data`."""
    match name:
        case "none":
            return data
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "bzip2":
            return bz2.compress(data)
        case "xz":
            return lzma.compress(data)
        case "zstd":
            return zstd(data)
        case "br":
            return cast("bytes", brotli.compress(data, quality=5))
        case "lz4":
            return cast("bytes", lz4.frame.compress(data, content_checksum=True))
        case "lzip":
            return lzip(data)
        case "lzma":
            return lzma.compress(data, lzma.FORMAT_ALONE)
    raise AssertionError(name)


CHECKED = ("gzip", "bzip2", "xz", "zstd", "lz4", "lzip")
"""The formats with checksums, of which several frames may follow each other."""
UNCHECKED = ("br", "lzma")
FORMATS = (*CHECKED, *UNCHECKED)


def feed_all(stream: Decompressor, pieces: Iterable[bytes]) -> bytes:
    given = b"".join(output for piece in pieces for output in stream.feed(piece))
    stream.finish()
    return given


def decompress(name: str, data: bytes, size: int = 1 << 20) -> bytes:
    """`data` decompressed, fed in pieces of `size` bytes."""
    return feed_all(decompressor(name), (data[at : at + size] for at in range(0, len(data), size)))

"""Compressors of the formats in `table`, each as fast as its library goes: for the rare client that must have just one of them."""

from __future__ import annotations

import struct
import zlib
from typing import Protocol, cast

from tvix_store.errors import UnsupportedError


class Compressor(Protocol):
    """Makes one stream: the results of `compress` and then `flush`, concatenated."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def compressor(name: str) -> Compressor:
    """A compressor for Nix's compression `name`. Its memory is bounded.

    Raises:
        UnsupportedError: there is none.
    """
    match name:
        case "gzip":
            return zlib.compressobj(1, wbits=31)
        case "bzip2":
            import bz2

            return bz2.BZ2Compressor(1)
        case "xz":
            import lzma

            return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=0)
        case "lzma":
            import lzma

            return lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
        case "zstd":
            import zstandard

            return zstandard.ZstdCompressor(1).compressobj()
        case "br":
            return _Brotli()
        case "lz4":
            return _Lz4()
        case "lzip":
            return _Lzip()
    raise UnsupportedError(f"nothing is compressed as {name[:20]!r} here")


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._stream = brotli.Compressor(quality=1)

    def compress(self, data: bytes, /) -> bytes:
        return cast("bytes", self._stream.process(data))

    def flush(self) -> bytes:
        return cast("bytes", self._stream.finish())


class _Lz4:
    def __init__(self) -> None:
        import lz4.frame

        self._stream = lz4.frame.LZ4FrameCompressor()
        self._head = cast("bytes", self._stream.begin())

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        return head + cast("bytes", self._stream.compress(data))

    def flush(self) -> bytes:
        return self._head + cast("bytes", self._stream.flush())


class _Lzip:
    """One member: see `lzip.Member` for the format."""

    _DICTIONARY = 18
    """Its size is 2 to this power, as in preset 0."""

    def __init__(self) -> None:
        import lzma

        # The end marker, which lzip wants, is written in the old format only, behind 13 bytes of a header of its own.
        self._stream = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
        self._to_drop = 13
        self._crc = self._size = 0
        self._begun = b"LZIP\x01" + bytes([self._DICTIONARY])
        self._written = 20

    def compress(self, data: bytes, /) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return self._passed(self._stream.compress(data))

    def flush(self) -> bytes:
        last = self._passed(self._stream.flush())
        return last + struct.pack("<IQQ", self._crc, self._size, self._written)

    def _passed(self, data: bytes) -> bytes:
        dropped = min(self._to_drop, len(data))
        self._to_drop -= dropped
        begun, self._begun = self._begun, b""
        passed = begun + data[dropped:]
        self._written += len(passed)
        return passed

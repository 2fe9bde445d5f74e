"""The members of lzip: a header, LZMA with an end marker, a trailer.

Source: the lzip manual, "File format". The standard library has the LZMA in it.
"""

from __future__ import annotations

import lzma
import struct
import zlib

from tvix_store.compression.decompressor import WindowError
from tvix_store.errors import InvalidError

_MAGIC = b"LZIP\x01"
_HEADER_SIZE = 6
_TRAILER = struct.Struct("<IQQ")
"""CRC-32 and size of the data, size of the member."""


class Member:
    """Decompresses one member; a `Frame`."""

    def __init__(self, max_window: int) -> None:
        self._max_window = max_window
        self.eof = False
        self.unused_data = b""
        self._header = b""
        self._lzma: lzma.LZMADecompressor | None = None
        self._trailer = b""
        self._taken = 0
        self._crc = 0
        self._size = 0

    @property
    def needs_input(self) -> bool:
        return self._lzma is None or self._lzma.eof or self._lzma.needs_input

    def decompress(self, data: memoryview | bytes, /, max_length: int) -> bytes:
        self._taken += len(data)
        if self._lzma is None:
            missing = _HEADER_SIZE - len(self._header)
            self._header += bytes(data[:missing])
            data = data[missing:]
            self._lzma = self._open()
            if self._lzma is None:
                return b""
        output = b""
        if not self._lzma.eof:
            output = self._lzma.decompress(data, max_length=max_length)
            self._crc = zlib.crc32(output, self._crc)
            self._size += len(output)
            data = self._lzma.unused_data
        if self._lzma.eof:
            self._end(data)
        return output

    def _open(self) -> lzma.LZMADecompressor | None:
        """The decompressor that the header asks for; None while the header is not whole."""
        if not _MAGIC.startswith(self._header[:5]):
            raise InvalidError(f"lzip: a member begins with {_MAGIC!r} (version 1), not {self._header[:5]!r}")
        if len(self._header) < _HEADER_SIZE:
            return None
        coded = self._header[5]
        # A power of 2, less some sixteenths of it.
        dictionary = (1 << (coded & 31)) * (16 - (coded >> 5)) // 16
        if not 4096 <= dictionary <= 512 << 20:
            raise InvalidError(f"lzip: a dictionary of {dictionary} bytes, where 4 KiB to 512 MiB may be")
        if dictionary > self._max_window:
            raise WindowError(f"lzip: decompressing takes {dictionary} bytes of memory, more than {self._max_window}")
        parameters = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": 3, "lp": 0, "pb": 2}
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[parameters])

    def _end(self, data: memoryview | bytes) -> None:
        missing = _TRAILER.size - len(self._trailer)
        self._trailer += bytes(data[:missing])
        if len(self._trailer) < _TRAILER.size:
            return
        self.unused_data = bytes(data[missing:])
        self.eof = True
        crc, size, member_size = _TRAILER.unpack(self._trailer)
        if crc != self._crc:
            raise InvalidError("lzip: the data does not match its CRC")
        if (size, member_size) != (self._size, self._taken - len(self.unused_data)):
            raise InvalidError("lzip: the sizes of the data and of the member are not those in the trailer")

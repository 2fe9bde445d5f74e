"""The formats, each over its library, for streams that want at most `max_window` bytes of history kept.

A library is imported when a stream of its format is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tvix_store.compression.decompressor import MAX_PIECE, Decompressor
from tvix_store.compression.frames import Frames
from tvix_store.errors import InvalidError

_SMALL_FRAME = 256 << 10


class Uncompressed:
    """The bytes as they are, in pieces."""

    def __init__(self, _max_window: int) -> None:
        pass

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), MAX_PIECE):
            yield data[at : at + MAX_PIECE]

    def finish(self) -> None:
        pass


def gzip(_max_window: int) -> Decompressor:
    """Members of RFC 1952; CRC and size are checked. Twice as fast as zlib."""
    from isal import igzip_lib

    def member() -> igzip_lib.IgzipDecompressor:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    return Frames("gzip", member, cast("type[Exception]", igzip_lib.IsalError))  # its stub takes it for an instance


def bzip2(_max_window: int) -> Decompressor:
    """Streams of bzip2; CRCs are checked."""
    import bz2

    return Frames("bzip2", bz2.BZ2Decompressor, (OSError, ValueError))


def xz(max_window: int) -> Decompressor:
    """Streams of the .xz format, version 1.2.1, with the padding that it allows; checks and index are checked."""
    import lzma

    return Frames("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_memory(max_window)), lzma.LZMAError, padding=4)


def _memory(window: int) -> int:
    """The memory of liblzma for a stream with that much history."""
    return window + window // 8


def lzma_alone(max_window: int) -> Decompressor:
    """The .lzma format of old: one stream, without a check."""
    import lzma

    return Frames(
        "lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_memory(max_window)), lzma.LZMAError, several=False
    )


def lzip(max_window: int) -> Decompressor:
    """Members of lzip, version 1; CRC and both sizes are checked."""
    import lzma

    from tvix_store.compression.lzip import Member

    return Frames("lzip", lambda: Member(max_window), lzma.LZMAError)


def zstd(max_window: int) -> Decompressor:
    """Frames of RFC 8878, skippable ones too; checksums, where there are any, are checked.

    Not by `zstandard` alone, which bounds no output of a stream: 64 KiB of input may make 512 MiB in one call of its.
    """
    import zstandard

    from tvix_store.compression.standard_zstd import zstd

    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: max_window.bit_length() - 1}
    reused = zstandard.ZstdDecompressor()

    def whole(data: memoryview) -> tuple[bytes, int] | None:
        """The content and size of the frame at the beginning of `data`, if it is whole there, small and sound.

        Its decompressor serves for all, which takes 3 µs a frame where a new one each takes 25.
        """
        try:
            # Of an empty frame, zstandard does not check the checksum.
            if 0 < zstandard.frame_content_size(data) <= _SMALL_FRAME:
                size = zstd.get_frame_size(data)
                return reused.decompress(data[:size]), size
        except (zstd.ZstdError, zstandard.ZstdError):
            pass
        return None

    return Frames("zstd", lambda: zstd.ZstdDecompressor(options=window), zstd.ZstdError, whole=whole)


def lz4(_max_window: int) -> Decompressor:
    """Frames of LZ4's frame format 1.6, skippable ones too; checksums, where there are any, are checked."""
    import lz4.frame

    return Frames("lz4", lz4.frame.LZ4FrameDecompressor, RuntimeError)


class Brotli:
    """One stream of RFC 7932, which has no check. Windows beyond its 16 MiB are refused by the library."""

    # The library's buffer grows from 240 to 480 KiB when it has not reached the limit.
    _LIMIT = 256 << 10
    _SLICE = 64 << 10

    def __init__(self, _max_window: int) -> None:
        import brotli

        self._stream = brotli.Decompressor()
        self._error = brotli.error

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        for at in range(0, len(view), self._SLICE):
            if self._stream.is_finished():
                raise InvalidError("br: bytes follow behind the end of the compressed data")
            output = self._process(view[at : at + self._SLICE])
            # It may hold output when it would take more input, so it is asked until nothing comes.
            while output or not self._stream.can_accept_more_data():
                if output:
                    yield output
                output = self._process(b"")

    def finish(self) -> None:
        if not self._stream.is_finished():
            raise InvalidError("br: the compressed data is cut short")

    def _process(self, data: memoryview | bytes) -> bytes:
        try:
            return cast("bytes", self._stream.process(data, output_buffer_limit=self._LIMIT))
        except self._error as error:
            raise InvalidError(f"br: the compressed data is damaged, or something follows it: {error}") from None

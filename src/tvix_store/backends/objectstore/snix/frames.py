"""zstd frames as snix writes them: level 3, no content size in the header, no checksum. Reading them is bounded."""

from __future__ import annotations

import zstandard

from tvix_store.errors import CorruptError

_LEVEL = 3
_MOST_WINDOW = 8 << 20
"""Bytes; snix uses 2 MiB."""


def compress(content: bytes | memoryview) -> bytes:
    """One frame. Blocks for some ms a MiB."""
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_content_size=False, write_checksum=False)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)


def decompress(frame: bytes, most: int, what: str) -> bytes:
    """The content of a frame of `what`, which has at most `most` bytes. Blocks.

    Raises:
        CorruptError: it has more, or is no frame.
    """
    try:
        with zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(frame) as reader:
            content = reader.read(most + 1)
            while len(content) <= most and (more := reader.read(most + 1 - len(content))):
                content += more
    except zstandard.ZstdError as error:
        raise CorruptError(f"{what} is no zstd frame: {error}") from None
    if len(content) > most:
        raise CorruptError(f"{what} has more than {most} bytes")
    return content

"""Deltas: a file as one zstd frame behind another file, its *base*, so that only the difference takes bytes.

The base stands before the content in the history of the decoder, as a prefix of RFC 8878. `zstd --patch-from` makes and reads the
same. docs/design/copying.md has the figures behind the constants.
"""

from __future__ import annotations

from typing import TypeAlias

from tvix_store.errors import InvalidError

Buffer: TypeAlias = bytes | memoryview

MAX_BASE = MAX_TARGET = 32 << 20
"""Most bytes of a base, and of the content of a delta. Both directions keep the base twice, and the content: 96 MiB, beside the
frame, and a table of 16 MiB where it is made."""
MAX_FRAME = MAX_TARGET + (MAX_TARGET >> 8) + 64
"""Most bytes of a frame: what zstd makes of content that does not compress."""
_LEVEL = 1
"""The fastest of zstd, which keeps one hash table. Higher levels search longer in the content, and find no more of the base."""
_BASE_BYTES_LOG = 3
"""Each place of the hash table stands for at most 2 to this power bytes of the base. With 16 bytes a place, much of the base is
overwritten by the rest of it, and a delta takes three times as many bytes."""
_SMALLEST_TABLE_LOG = 14
_SMALLEST_WINDOW_LOG = 10
_SMALLEST_BASE = 8
"""Bytes from which a base serves as one: zstd ignores shorter ones, and its bindings refuse them."""
_MAGIC = b"\x28\xb5\x2f\xfd"


def make_delta(base: Buffer, target: Buffer) -> bytes:
    """A frame from which `apply_delta` makes `target` where `base` is there. Native code works without the interpreter's lock.

    Raises:
        InvalidError: one of both has more bytes than `MAX_BASE`, `MAX_TARGET`.
    """
    from tvix_store.compression.standard_zstd import zstd

    _check_sizes(len(base), len(target))
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: _LEVEL,
        parameter.window_log: _window_log(len(base) + len(target)),
        parameter.hash_log: max(_SMALLEST_TABLE_LOG, _log(len(base)) - _BASE_BYTES_LOG),
    }
    prefix = zstd.ZstdDict(base, is_raw=True).as_prefix if len(base) >= _SMALLEST_BASE else None
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    return compressor.compress(target, zstd.ZstdCompressor.FLUSH_FRAME)


def apply_delta(base: Buffer, frame: bytes, size: int) -> bytes:
    """The content of `frame`, a delta against `base`: exactly `size` bytes. The caller checks that they are the right ones.

    A frame may come from a stranger. Memory is taken for `base` and `size` bytes, whatever the frame says.

    Raises:
        InvalidError: `frame` is damaged, or not one whole frame of zstd. It states another size, or none. It names a dictionary.
            Its window is larger than base and content fill. Or one of the three is over its limit.
    """
    import zstandard

    from tvix_store.compression.standard_zstd import zstd

    _check_sizes(len(base), size)
    if len(frame) > MAX_FRAME:
        raise InvalidError(f"a delta has at most {MAX_FRAME} bytes, and not {len(frame)}")
    if not frame.startswith(_MAGIC):
        raise InvalidError("a delta begins as a frame of zstd does, and this one does not")
    try:
        stated = zstandard.get_frame_parameters(frame)
        end = zstd.get_frame_size(frame)
    except (zstd.ZstdError, zstandard.ZstdError):
        raise InvalidError(f"the delta of {len(frame)} bytes is cut short or damaged") from None
    if stated.content_size != size:
        told = "no size" if stated.content_size == zstandard.CONTENTSIZE_UNKNOWN else f"{stated.content_size} bytes"
        raise InvalidError(f"the delta states {told}, and should make {size} bytes")
    if stated.dict_id:
        raise InvalidError(f"the delta names the dictionary {stated.dict_id}; it may have none but its base")
    if stated.window_size > 1 << _window_log(len(base) + size):
        raise InvalidError(f"the delta wants a window of {stated.window_size} bytes, more than base and content fill")
    if end != len(frame):
        raise InvalidError(f"{len(frame) - end} bytes follow behind the end of the delta")
    # Not by `zstd`, which keeps a window beside its output, and joins pieces of that: 64 to 128 MiB more.
    prefix = None
    if len(base) >= _SMALLEST_BASE:
        prefix = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    try:
        if size == 0:  # here zstandard would not look at the blocks
            zstd.decompress(frame)
            return b""
        content = zstandard.ZstdDecompressor(dict_data=prefix).decompress(frame)
    except (zstd.ZstdError, zstandard.ZstdError) as error:
        raise InvalidError(f"the delta is damaged: {error}") from None
    assert len(content) == size
    return content


def _check_sizes(base: int, target: int) -> None:
    if base > MAX_BASE:
        raise InvalidError(f"the base of a delta has at most {MAX_BASE} bytes, and not {base}")
    if not 0 <= target <= MAX_TARGET:
        raise InvalidError(f"the content of a delta has at most {MAX_TARGET} bytes, and not {target}")


def _window_log(size: int) -> int:
    return max(_SMALLEST_WINDOW_LOG, _log(size))


def _log(size: int) -> int:
    """The power of 2 that is not below `size`."""
    return max(size - 1, 0).bit_length()

"""The protobuf wire format, as far as our messages use it: varints and length-delimited fields.

Canonical bytes are hashed, so the model writes them itself. The tests compare them with those of the protobuf runtime.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tvix_store.errors import InvalidError

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
MAX_UINT64 = (1 << 64) - 1
MAX_PIECES = 64
"""How many fields a message may have all of whose fields are singular, and in how many pieces a singular message may come.

Writers send each once. Parsers must take repetitions, but a parser without a bound works on 4 MiB of them for half a minute."""


def check_size(size: int) -> None:
    """Refuse a size that does not fit a `uint64`.

    Raises:
        InvalidError: it does not.
    """
    if not 0 <= size <= MAX_UINT64:
        raise InvalidError(f"size {size} does not fit 64 bits")


def varint(value: int) -> bytes:
    """`value` (0 to 2**64 - 1) as a varint."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = [bytes([n]) for n in range(0x80)]


# None of our messages has a field number above 15, so every tag is one byte.
_VARINT_TAGS = [varint(field << 3 | VARINT) for field in range(16)]
_BYTES_TAGS = [varint(field << 3 | BYTES) for field in range(16)]


def bytes_field(field: int, value: bytes) -> bytes:
    """A singular field of bytes, string or message type: nothing where `value` is empty."""
    return _BYTES_TAGS[field] + varint(len(value)) + value if value else b""


def message_field(field: int, value: bytes) -> bytes:
    """An element of a repeated field, or a member of a oneof: present even where empty."""
    return _BYTES_TAGS[field] + varint(len(value)) + value


def uint_field(field: int, value: int) -> bytes:
    """A singular integer, enum or bool field: nothing where `value` is 0."""
    return _VARINT_TAGS[field] + varint(value) if value else b""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and the position behind it.

    Raises:
        InvalidError: it is cut short or longer than 64 bits.
    """
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise InvalidError("message: a number is longer than 64 bits")
    except IndexError:
        raise InvalidError("message: cut short inside a number") from None
    if value > MAX_UINT64:
        raise InvalidError("message: a number is longer than 64 bits")
    return value, at


def fields(data: bytes) -> Iterator[tuple[int, int | bytes | None]]:
    """The (field number, value) pairs of a message, as they lie; the value is None for a fixed-width field: our messages have none.

    Raises:
        InvalidError: `data` is not a well-formed message.
    """
    at, end = 0, len(data)
    while at < end:
        # A number below 128 is one byte: nearly all keys and lengths are, and a call would take as long as all the rest.
        key = data[at]
        if key < 0x80:
            at += 1
        else:
            key, at = read_varint(data, at)
        field, wire_type = key >> 3, key & 7
        if not 1 <= field < 1 << 29:
            raise InvalidError(f"message: {field} is not a field number")
        if wire_type == BYTES:
            if at < end and data[at] < 0x80:
                length = data[at]
                at += 1
            else:
                length, at = read_varint(data, at)
            if length > end - at:
                raise InvalidError(f"message: field {field} is cut short")
            yield field, data[at : at + length]
            at += length
        elif wire_type == VARINT:
            value, at = read_varint(data, at)
            yield field, value
        elif wire_type in (FIXED32, FIXED64):
            width = 4 if wire_type == FIXED32 else 8
            if width > end - at:
                raise InvalidError(f"message: field {field} is cut short")
            yield field, None
            at += width
        else:
            raise InvalidError(f"message: field {field} has the unknown wire type {wire_type}")


def few_fields(data: bytes, most: int = MAX_PIECES) -> list[tuple[int, int | bytes | None]]:
    """As `fields`, for a message that has few of them: without a repeated field, as is the default, or with a bounded one.

    So its size does not tell how long it takes to read.

    Raises:
        InvalidError: as `fields`; there are more than `most` fields.
    """
    found = list(islice(fields(data), most + 1))
    if len(found) > most:
        raise InvalidError(f"message: it has more than {most} fields, as many as are taken")
    return found


def gather(pieces: list[bytes], piece: bytes, what: str) -> None:
    """Add one more piece of a singular message field to `pieces`: protobuf merges them, which is to concatenate the encodings.

    Raises:
        InvalidError: `what`, the field, comes in more than MAX_PIECES pieces.
    """
    if len(pieces) == MAX_PIECES:
        raise InvalidError(f"message: {what} comes in more than {MAX_PIECES} pieces, though it may come once")
    pieces.append(piece)


def as_bytes(field: int, value: int | bytes | None) -> bytes:
    if not isinstance(value, bytes):
        raise InvalidError(f"message: field {field} must be bytes")
    return value


def as_uint(field: int, value: int | bytes | None) -> int:
    if not isinstance(value, int):
        raise InvalidError(f"message: field {field} must be a number")
    return value


def as_text(field: int, value: int | bytes | None) -> str:
    try:
        return as_bytes(field, value).decode()
    except UnicodeDecodeError:
        raise InvalidError(f"message: field {field} is not UTF-8") from None

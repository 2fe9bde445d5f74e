"""Header blocks of HTTP/2 (RFC 7541), as far as a gRPC client needs them.

We tell servers that we keep no dynamic table (SETTINGS_HEADER_TABLE_SIZE is 0). So a block means the same wherever it comes, and
the few different ones that a server sends are read once.
"""

from __future__ import annotations

from collections.abc import Iterable

_STATIC = {number: (b":status", value) for number, value in zip(range(8, 15), b"200 204 206 304 400 404 500".split(), strict=True)}
_STATIC[31] = (b"content-type", b"")
"""Entries of the static table that we look at (RFC 7541, Appendix A); it has 61."""
_STATIC_ENTRIES = 61
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606060607080f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606060507070606060506070605050607070707070f0b0e0d1c"
    "141614141616161716171717171718171818161718171717171516171617171816151416161717151716161815161717151516151716171714161616171616171a"
    "1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
"""Bits of the Huffman code of each byte, and of the end (Appendix B). Within a length, codes go up with the byte."""
_END = 256
_LONGEST_CACHED = 1024
_MOST_CACHED = 256


class HeaderError(Exception):
    """A header block that cannot be read."""


def _huffman_codes() -> dict[int, int]:
    """The symbol of each code; a 1 stands before a code's bits, so that zeros at its beginning count."""
    symbols: dict[int, int] = {}
    code, length = 0, 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda each: (_LENGTHS[each], each)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        symbols[1 << length | code] = symbol
        code += 1
    return symbols


_SYMBOLS = _huffman_codes()


def encode_headers(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block: each field as a literal that nobody shall index."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


class HeaderDecoder:
    """Reads header blocks. Fields that we do not look at, and whose names are indexed, are left out.

    Raises:
        HeaderError: a block breaks a rule.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, dict[bytes, bytes]] = {}

    def decode(self, block: bytes) -> dict[bytes, bytes]:
        known = self._known.get(block)
        if known is None:
            known = {name: value for name, value in _fields(block) if name}
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            if len(block) <= _LONGEST_CACHED:
                self._known[block] = known
        return known


def _fields(block: bytes) -> Iterable[tuple[bytes, bytes]]:
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # indexed
            index, at = _integer(block, at, 7)
            yield _entry(index)
        elif first & 0xE0 == 0x20:  # a new size of the dynamic table
            _, at = _integer(block, at, 5)
        else:  # a literal: to be indexed, or not
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            if index:
                name, _ = _entry(index)
            else:
                name, at = _read_string(block, at)
            value, at = _read_string(block, at)
            yield name, value


def _entry(index: int) -> tuple[bytes, bytes]:
    if not 1 <= index <= _STATIC_ENTRIES:
        raise HeaderError(f"entry {index} of the header table does not exist")
    return _STATIC.get(index, (b"", b""))


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 0x7F:
        return bytes([size]) + value
    size -= 0x7F
    head = bytearray([0x7F])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + value


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """The integer whose prefix are the low `bits` of the byte at `at`, and the position behind it."""
    try:
        value = block[at] & (1 << bits) - 1
        at += 1
        if value < (1 << bits) - 1:
            return value, at
        for shift in range(0, 28, 7):
            byte = block[at]
            at += 1
            value += (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
    except IndexError:
        raise HeaderError("a header block is cut short") from None
    raise HeaderError("a number in a header block is too large")


def _read_string(block: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(block):
        raise HeaderError("a header block is cut short")
    compressed = block[at] & 0x80
    size, at = _integer(block, at, 7)
    if size > len(block) - at:
        raise HeaderError("a header block is cut short")
    value = block[at : at + size]
    return _decompressed(value) if compressed else value, at + size


def _decompressed(data: bytes) -> bytes:
    out = bytearray()
    code = 1
    for byte in data:
        for bit in range(7, -1, -1):
            code = code << 1 | byte >> bit & 1
            symbol = _SYMBOLS.get(code)
            if symbol is not None:
                if symbol == _END:
                    raise HeaderError("a string in a header block goes on behind its end")
                out.append(symbol)
                code = 1
        if code.bit_length() > 1 + max(_LENGTHS):
            raise HeaderError("a string in a header block has an unknown code")
    padding = code.bit_length() - 1
    if padding > 7 or code != (1 << padding + 1) - 1:
        raise HeaderError("a string in a header block does not end as it should")
    return bytes(out)

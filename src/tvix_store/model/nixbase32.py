"""Nix's base 32: its own alphabet, least significant bits last in the string.

Source: nix, src/libutil/hash.cc; `tests/vectors/nix.json` has output of the real `nix`.
"""

from __future__ import annotations

from tvix_store.errors import InvalidError

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
_PAIRS = [one + other for one in ALPHABET for other in ALPHABET]
_TO_DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
"""To the digits of base 32 that `int` reads, and
_BYTES_TO_DIGITS: the same of bytes, where all others become one that `int` does not take."""
_BYTES_TO_DIGITS = bytes(ord(chr(byte).translate(_TO_DIGITS)) if chr(byte) in ALPHABET else ord("!") for byte in range(256))


def encoded_length(size: int) -> int:
    """How many characters `size` bytes take."""
    return (size * 8 + 4) // 5


def encode(data: bytes) -> str:
    number = int.from_bytes(data, "little")
    length = encoded_length(len(data))
    text = "".join([_PAIRS[number >> shift & 1023] for shift in range(10 * ((length - 1) // 2), -1, -10)])
    return text if length % 2 == 0 else text[1:]


def decode(text: str) -> bytes:
    """The bytes behind `text`.

    Raises:
        InvalidError: a character is not of the alphabet, or no number of bytes encodes to `text`.
    """
    size = len(text) * 5 // 8
    if encoded_length(size) != len(text):
        raise InvalidError(f"not nixbase32: {text!r} has an impossible length ({len(text)})")
    others = text.strip(ALPHABET)
    if others:
        raise InvalidError(f"not nixbase32: {text!r} holds {others[0]!r}, which is none of {ALPHABET}")
    number = int(text.translate(_TO_DIGITS), 32) if text else 0
    if number >> size * 8:
        raise InvalidError(f"not nixbase32: {text!r} has bits set behind its last byte")
    return number.to_bytes(size, "little")


def number(text: bytes) -> int:
    """The number that `text` stands for, least significant byte first.

    Raises:
        ValueError: it is not nixbase32.
    """
    return int(text.translate(_BYTES_TO_DIGITS), 32)

"""Nix's base 32: its own alphabet, least significant bits last in the string.

Source: nix, src/libutil/hash.cc; `tests/vectors/nix.json` holds what the real `nix` printed.
"""

from __future__ import annotations

from tvix_store.errors import InvalidError

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def encoded_length(size: int) -> int:
    """How many characters `size` bytes take."""
    return (size * 8 + 4) // 5


def encode(data: bytes) -> str:
    number = int.from_bytes(data, "little")
    return "".join(ALPHABET[number >> 5 * n & 31] for n in reversed(range(encoded_length(len(data)))))


def decode(text: str) -> bytes:
    """The bytes behind `text`.

    Raises:
        InvalidError: a character is not of the alphabet, or no number of bytes encodes to `text`.
    """
    size = len(text) * 5 // 8
    if encoded_length(size) != len(text):
        raise InvalidError(f"not nixbase32: {text!r} has an impossible length ({len(text)})")
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            raise InvalidError(f"not nixbase32: {text!r} holds {character!r}")
        number = number << 5 | value
    if number >> size * 8:
        raise InvalidError(f"not nixbase32: {text!r} has bits set behind its last byte")
    return number.to_bytes(size, "little")

"""NixHash: a digest with its algorithm, as Nix writes it (`sha256:…`, `sha256-…`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Protocol, Self

from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32
from tvix_store.model.wanted import wanted_text

SIZES = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "blake3": 32}
"""Digest sizes in bytes of the algorithms that Nix knows."""


class UnknownAlgorithmError(InvalidError):
    """A hash whose algorithm is not one of Nix's, or is newer than this program."""


class Hasher(Protocol):
    """A hash object, as `hashlib` and `blake3` make it."""

    def update(self, data: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...

    def copy(self) -> Self: ...


def hasher(algorithm: str) -> Hasher:
    """A new hash of one of Nix's algorithms."""
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    return hashlib.new(algorithm, usedforsecurity=False)


@dataclass(frozen=True, slots=True, order=True)
class NixHash:
    """A digest under one of Nix's algorithms: md5, sha1, sha256, sha512 or blake3."""

    algorithm: str
    digest: bytes

    def __post_init__(self) -> None:
        size = _size(self.algorithm)
        if len(self.digest) != size:
            raise InvalidError(f"a {self.algorithm} digest is {size} bytes, got {len(self.digest)}")

    @classmethod
    def parse(cls, text: str) -> NixHash:
        """Read `algo:<hex, nixbase32 or base64>` or the SRI form `algo-<base64>`.

        Raises:
            InvalidError: `text` is none of these.
        """
        algorithm, separator, body = wanted_text(text).partition(":")
        sri = not separator
        if sri:
            algorithm, separator, body = text.partition("-")
        if not separator:
            raise InvalidError(f"not a hash: {text[:100]!r} (expected sha256:… or sha256-…)")
        size = _size(algorithm)
        if not sri and len(body) == size * 2:
            try:
                return cls(algorithm, bytes.fromhex(body))
            except ValueError:
                raise InvalidError(f"not a hash: {text[:100]!r} is not hex") from None
        if not sri and len(body) == nixbase32.encoded_length(size):
            return cls(algorithm, nixbase32.decode(body))
        try:
            return cls(algorithm, base64.b64decode(body, validate=True))
        except (ValueError, binascii.Error):
            raise InvalidError(f"not a hash: {text[:100]!r} is not base64") from None

    @property
    def nixbase32(self) -> str:
        """`algo:<nixbase32>`, as Nix prints it in a NARInfo."""
        return f"{self.algorithm}:{nixbase32.encode(self.digest)}"

    @property
    def sri(self) -> str:
        """`algo-<base64>`, the form of Subresource Integrity."""
        return f"{self.algorithm}-{base64.b64encode(self.digest).decode()}"

    def __str__(self) -> str:
        return self.nixbase32

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"NixHash({str(self)!r})"


def _size(algorithm: str) -> int:
    size = SIZES.get(algorithm)
    if size is None:
        raise UnknownAlgorithmError(f"unknown hash algorithm {algorithm[:40]!r} (known: {', '.join(SIZES)})")
    return size

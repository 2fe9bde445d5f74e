"""NixHash: a digest with its algorithm, as Nix writes it (`sha256:…`, `sha256-…`)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32

SIZES = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
"""Digest sizes in bytes of the algorithms that Nix knows."""


@dataclass(frozen=True, slots=True, order=True)
class NixHash:
    """A digest under one of Nix's algorithms: md5, sha1, sha256 or sha512."""

    algorithm: str
    digest: bytes

    def __post_init__(self) -> None:
        size = SIZES.get(self.algorithm)
        if size is None:
            raise InvalidError(f"unknown hash algorithm {self.algorithm!r} (known: {', '.join(SIZES)})")
        if len(self.digest) != size:
            raise InvalidError(f"a {self.algorithm} digest is {size} bytes, got {len(self.digest)}")

    @classmethod
    def parse(cls, text: str) -> NixHash:
        """Read `algo:<hex, nixbase32 or base64>` or the SRI form `algo-<base64>`.

        Raises:
            InvalidError: `text` is none of these.
        """
        algorithm, separator, body = text.partition(":")
        sri = not separator
        if sri:
            algorithm, separator, body = text.partition("-")
        size = SIZES.get(algorithm)
        if not separator or size is None:
            raise InvalidError(f"not a hash: {text[:100]!r} (expected sha256:… or sha256-…)")
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

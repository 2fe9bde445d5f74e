"""Digest: the BLAKE3 name of a blob, a chunk or a directory."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from blake3 import blake3

from tvix_store.errors import InvalidError
from tvix_store.model.wanted import wanted_text


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A BLAKE3 digest: exactly 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidError(f"digest must be 32 bytes, got {len(self.raw)}")

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """The digest of `data`."""
        return cls(blake3(data).digest())

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read 64 hex digits or padded base64, with or without a `b3:` or `blake3-` prefix.

        Raises:
            InvalidError: `text` is neither.
        """
        body = wanted_text(text).removeprefix("b3:").removeprefix("blake3-")
        try:
            if len(body) == 64:
                return cls(bytes.fromhex(body))
            if len(body) == 44:
                return cls(base64.b64decode(body, validate=True))
        except (ValueError, binascii.Error):
            pass
        raise InvalidError(f"not a digest: {text[:100]!r} (expected 64 hex digits or 44 base64 characters)")

    @property
    def hex(self) -> str:
        return self.raw.hex()

    @property
    def base64(self) -> str:
        return base64.b64encode(self.raw).decode()

    def __str__(self) -> str:
        return f"b3:{self.raw.hex()}"

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"Digest({str(self)!r})"


EMPTY = Digest.of(b"")
"""The digest of no bytes: the empty blob and, since its encoding is empty, the empty directory."""

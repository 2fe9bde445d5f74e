"""Signatures: ed25519 over a path's fingerprint, with Nix's key and signature formats.

Keys and signatures are `name:base64`. A secret key's base64 holds 64 bytes: the seed and the public key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sized
from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.model.wanted import wanted_text

MAX_SIGNATURES = 64
"""Of one path: each that bears the name of a trusted key is checked, which takes some 50 µs."""
_KEY_NAME = re.compile(r"[!-9;-~]{1,256}")
"""Printable ASCII, but no space, nor the colon behind it."""


def fingerprint(
    path: StorePath, nar_sha256: bytes, nar_size: int, references: Iterable[StorePath], store_dir: str = STORE_DIR
) -> bytes:
    """The bytes that a signature signs."""
    listed = ",".join(sorted(reference.absolute(store_dir) for reference in references))
    return f"1;{path.absolute(store_dir)};{NixHash('sha256', nar_sha256)};{nar_size};{listed}".encode()


def check_count(signatures: Sized) -> None:
    """Raise InvalidError where these are too many distinct signatures for one path."""
    if len(signatures) > MAX_SIGNATURES:
        raise InvalidError(f"a path may have {MAX_SIGNATURES} signatures, not {len(signatures)}")


def _split(text: str, what: str) -> tuple[str, bytes]:
    name, separator, body = wanted_text(text).strip().partition(":")
    if not separator:
        raise InvalidError(f"not a {what}: expected name:base64, as in cache.example.org-1:…")
    try:
        return name, base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        raise InvalidError(f"not a {what}: the part behind {name[:100]!r} is not base64") from None


def _check(what: str, name: str, data: bytes, size: int) -> None:
    if not _KEY_NAME.fullmatch(name):
        raise InvalidError(f"not a {what}: {name[:100]!r} is not a key name (1 to 256 printable characters of ASCII, no colon)")
    if len(data) != size:
        raise InvalidError(f"not a {what}: the part behind {name[:100]!r} has {len(data)} bytes, expected {size}")


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """A signature (64 bytes) and the name of the key that made it."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check("signature", self.name, self.data, 64)

    @classmethod
    def parse(cls, text: str) -> Signature:
        return cls(*_split(text, "signature"))

    def __str__(self) -> str:
        return f"{self.name}:{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"Signature({str(self)!r})"

    def encode(self) -> bytes:
        """The message `NARInfo.Signature`."""
        return wire.bytes_field(1, self.name.encode()) + wire.bytes_field(2, self.data)

    @classmethod
    def decode(cls, data: bytes) -> Signature:
        name, signature = "", b""
        for field, value in wire.few_fields(data):
            match field:
                case 1:
                    name = wire.as_text(field, value)
                case 2:
                    signature = wire.as_bytes(field, value)
                case _:
                    raise InvalidError(f"signature: unknown field {field}")
        return cls(name, signature)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures: its name and 32 bytes."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check("public key", self.name, self.data, 32)

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        return cls(*_split(text, "public key"))

    def verifies(self, signature: Signature, message: bytes) -> bool:
        """Whether `signature` is this key's, over `message`."""
        from nacl.exceptions import BadSignatureError
        from nacl.signing import VerifyKey

        if signature.name != self.name:
            return False
        try:
            VerifyKey(self.data).verify(message, signature.data)
        except BadSignatureError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name}:{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"PublicKey({str(self)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """A key that signs: its name and 64 bytes (seed, then public key). Never printed by `repr`."""

    name: str
    data: bytes

    def __post_init__(self) -> None:
        _check("secret key", self.name, self.data, 64)
        if _public(self.data[:32]) != self.data[32:]:
            raise InvalidError(f"not a secret key: the two halves of {self.name!r} do not belong together")

    @classmethod
    def parse(cls, text: str) -> SecretKey:
        return cls(*_split(text, "secret key"))

    @classmethod
    def generate(cls, name: str) -> SecretKey:
        import os

        return cls.from_seed(name, os.urandom(32))

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> SecretKey:
        """The key that `seed` (32 random bytes) stands for."""
        return cls(name, seed + _public(seed))

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.name, self.data[32:])

    def sign(self, message: bytes) -> Signature:
        from nacl.signing import SigningKey

        return Signature(self.name, SigningKey(self.data[:32]).sign(message).signature)

    def __str__(self) -> str:
        return f"{self.name}:{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        return f"SecretKey({self.name!r}, …)"


def _public(seed: bytes) -> bytes:
    from nacl.signing import SigningKey

    return bytes(SigningKey(seed).verify_key)

"""ContentAddress: how a store path's name follows from its content (the `CA` of a NARInfo)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.nix_hash import NixHash


class Method(Enum):
    """What was hashed."""

    NAR = "fixed:r:"
    FLAT = "fixed:"
    TEXT = "text:"


_KINDS: tuple[tuple[Method, str], ...] = (
    (Method.NAR, "sha256"),
    (Method.NAR, "sha1"),
    (Method.NAR, "sha512"),
    (Method.NAR, "md5"),
    (Method.TEXT, "sha256"),
    (Method.FLAT, "sha1"),
    (Method.FLAT, "md5"),
    (Method.FLAT, "sha256"),
    (Method.FLAT, "sha512"),
)
"""The enum `CA.Hash` of the protocol, in number order."""


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """A method and a hash, as in `fixed:r:sha256:<nixbase32>`."""

    method: Method
    hash: NixHash

    def __post_init__(self) -> None:
        if (self.method, self.hash.algorithm) not in _KINDS:
            raise InvalidError(f"content address: {self.method.value}{self.hash.algorithm} does not exist")

    @classmethod
    def parse(cls, text: str) -> ContentAddress:
        """Read `fixed:r:sha256:…`, `fixed:sha256:…` or `text:sha256:…`.

        Raises:
            InvalidError: `text` is none of these.
        """
        for method in Method:
            if text.startswith(method.value):
                return cls(method, NixHash.parse(text.removeprefix(method.value)))
        raise InvalidError(f"not a content address: {text[:100]!r} (expected fixed:r:…, fixed:… or text:…)")

    def __str__(self) -> str:
        return f"{self.method.value}{self.hash}"

    def encode(self) -> bytes:
        """The message `NARInfo.CA`."""
        return wire.uint_field(1, _KINDS.index((self.method, self.hash.algorithm))) + wire.bytes_field(2, self.hash.digest)

    @classmethod
    def decode(cls, data: bytes) -> ContentAddress:
        kind, digest = 0, b""
        for field, value in wire.fields(data):
            match field:
                case 1:
                    kind = wire.as_uint(field, value)
                case 2:
                    digest = wire.as_bytes(field, value)
                case _:
                    raise InvalidError(f"content address: unknown field {field}")
        if kind >= len(_KINDS):
            raise InvalidError(f"content address: unknown type {kind}")
        method, algorithm = _KINDS[kind]
        return cls(method, NixHash(algorithm, digest))

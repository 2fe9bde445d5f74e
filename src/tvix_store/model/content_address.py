"""ContentAddress: how a store path's name follows from its content (the `CA` of a NARInfo)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.store_path import (
    STORE_DIR,
    StorePath,
    fixed_output_path,
    flat_output_path,
    recursive_output_path,
    text_path,
)
from tvix_store.model.wanted import wanted_text


class Method(Enum):
    """The content that was hashed."""

    NAR = "fixed:r:"
    FLAT = "fixed:"
    TEXT = "text:"


_KINDS = {
    0: (Method.NAR, "sha256"),
    1: (Method.NAR, "sha1"),
    2: (Method.NAR, "sha512"),
    3: (Method.NAR, "md5"),
    4: (Method.TEXT, "sha256"),
    5: (Method.FLAT, "sha1"),
    6: (Method.FLAT, "md5"),
    7: (Method.FLAT, "sha256"),
    8: (Method.FLAT, "sha512"),
    # Ours, far from the numbers that tvix and snix may give out next.
    1000: (Method.NAR, "blake3"),
    1001: (Method.FLAT, "blake3"),
}
"""The enum `CA.Hash` of the protocol."""
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """A method and a hash, as in `fixed:r:sha256:<nixbase32>`."""

    method: Method
    hash: NixHash

    def __post_init__(self) -> None:
        if (self.method, self.hash.algorithm) not in _NUMBERS:
            raise InvalidError(f"there are no content addresses by {self.method.value}{self.hash.algorithm}")

    @classmethod
    def parse(cls, text: str) -> ContentAddress:
        """Read `fixed:r:sha256:…`, `fixed:sha256:…` or `text:sha256:…`.

        Raises:
            InvalidError: `text` is none of these.
        """
        for method in Method:
            if wanted_text(text).startswith(method.value):
                return cls._by(method, text)
        raise InvalidError(f"not a content address: {text[:100]!r} (expected fixed:r:…, fixed:… or text:…)")

    @classmethod
    def _by(cls, method: Method, text: str) -> ContentAddress:
        stated = text.removeprefix(method.value)
        other, _, rest = stated.partition(":")
        if method is Method.FLAT and ":" in rest:
            # Nix has `fixed:git:sha1:…`, the hash of a Git tree, as an experiment.
            algorithm = rest.partition(":")[0]
            raise InvalidError(
                f"content address {text[:100]!r}: the method {other[:40]!r} with {algorithm[:40]!r} cannot be checked here "
                "(fixed:r:…, fixed:… and text:… can)"
            )
        try:
            return cls(method, NixHash.parse(stated))
        except InvalidError as error:
            raise InvalidError(f"content address {text[:100]!r}: {error}") from None

    def __str__(self) -> str:
        return f"{self.method.value}{self.hash}"

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"ContentAddress({str(self)!r})"

    def store_path(
        self, name: str, references: Collection[StorePath] = (), store_dir: str = STORE_DIR, *, self_reference: bool = False
    ) -> StorePath:
        """The store path that content so addressed has; `references` are those to other paths.

        Raises:
            InvalidError: Nix allows no such references with this method, or `name` is not a store path's.
        """
        algorithm, digest = self.hash.algorithm, self.hash.digest
        if self.method is Method.NAR and algorithm == "sha256":
            return fixed_output_path(name, digest, references, store_dir, self_reference=self_reference)
        if self_reference or (references and self.method is not Method.TEXT):
            allowed = "refer to other store paths only" if self.method is Method.TEXT else "refer to no store path"
            raise InvalidError(f"content addressed by {self.method.value}{algorithm} may {allowed}")
        match self.method:
            case Method.TEXT:
                return text_path(name, digest, references, store_dir)
            case Method.FLAT:
                return flat_output_path(name, self.hash, store_dir)
            case Method.NAR:
                return recursive_output_path(name, self.hash, store_dir)

    def encode(self) -> bytes:
        """The message `NARInfo.CA`."""
        return wire.uint_field(1, _NUMBERS[self.method, self.hash.algorithm]) + wire.bytes_field(2, self.hash.digest)

    @classmethod
    def decode(cls, data: bytes) -> ContentAddress:
        kind, digest = 0, b""
        for field, value in wire.few_fields(data):
            match field:
                case 1:
                    kind = wire.as_uint(field, value)
                case 2:
                    digest = wire.as_bytes(field, value)
                case _:
                    raise InvalidError(f"content address: unknown field {field}")
        if kind not in _KINDS:
            raise InvalidError(f"content address: unknown type {kind}")
        method, algorithm = _KINDS[kind]
        return cls(method, NixHash(algorithm, digest))

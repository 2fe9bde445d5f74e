"""StorePath: `<32 nixbase32 characters>-<name>` below a store directory, and how Nix computes it."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model import nixbase32
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.wanted import wanted_text

STORE_DIR = "/nix/store"
OUTPUT_HASH_SIZE = 20
HASH_CHARACTERS = 32
_NAME = re.compile(r"(?!\.{1,2}(?:-|\Z))[0-9A-Za-z+\-._?=]{1,211}")


def check_store_path_name(name: str) -> str:
    """Return `name` if a store path may be called so.

    Source: nix 2.34, src/libstore/path.cc, checkName.

    Raises:
        InvalidError: it is empty, longer than 211 characters, holds another character, or up to its first `-` is `.` or `..`.
    """
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"not a store path name: {name[:220]!r} (1 to 211 characters of 0-9 A-Z a-z + - . _ ? =, not . or .. up to a dash)"
        )
    return name


def check_store_dir(store_dir: str) -> str:
    """Return `store_dir` if Nix's store may be there.

    Raises:
        InvalidError: it is not an absolute path in its shortest form, on one line.
    """
    if not store_dir.startswith("/") or posixpath.normpath(store_dir) != store_dir or not store_dir.isprintable():
        raise InvalidError(f"not a store directory: {store_dir[:250]!r} (expected an absolute path, such as {STORE_DIR})")
    return store_dir


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """A store path without its store directory: the output hash (20 bytes) and the name."""

    output_hash: bytes
    name: str

    def __post_init__(self) -> None:
        if len(self.output_hash) != OUTPUT_HASH_SIZE:
            raise InvalidError(f"output hash must be {OUTPUT_HASH_SIZE} bytes, got {len(self.output_hash)}")
        check_store_path_name(self.name)

    @classmethod
    def parse(cls, text: str, store_dir: str = STORE_DIR) -> StorePath:
        """Read `<hash>-<name>`, or `<store_dir>/<hash>-<name>`.

        Raises:
            InvalidError: `text` is neither.
        """
        return cls.from_base_name(wanted_text(text).removeprefix(store_dir.rstrip("/") + "/"))

    @classmethod
    def from_base_name(cls, text: str) -> StorePath:
        """Read `<hash>-<name>`, and nothing else.

        Raises:
            InvalidError: `text` is not that.
        """
        if text[HASH_CHARACTERS : HASH_CHARACTERS + 1] != "-" or "/" in text:
            raise InvalidError(f"not a store path: {text[:250]!r} (expected <32 characters>-<name>)")
        return cls(nixbase32.decode(text[:HASH_CHARACTERS]), text[HASH_CHARACTERS + 1 :])

    def __str__(self) -> str:
        return f"{nixbase32.encode(self.output_hash)}-{self.name}"

    def __repr__(self) -> str:
        """The form that `parse` reads, quoted."""
        return f"StorePath({str(self)!r})"

    def absolute(self, store_dir: str = STORE_DIR) -> str:
        return f"{store_dir}/{self}"


def parse_output_hash(text: str, store_dir: str = STORE_DIR) -> bytes:
    """The output hash (20 bytes) in a store path, its base name, or the 32 characters alone.

    Raises:
        InvalidError: `text` is none of these.
    """
    if len(text) == HASH_CHARACTERS:
        return nixbase32.decode(text)
    return StorePath.parse(text, store_dir).output_hash


def fixed_output_path(
    name: str, nar_sha256: bytes, references: Iterable[StorePath] = (), store_dir: str = STORE_DIR, *, self_reference: bool = False
) -> StorePath:
    """The store path of content added by its NAR hash (`fixed:r:sha256`), as `nix-store --add` computes it.

    Source: nix, src/libstore/store-api.cc, makeFixedOutputPath.
    """
    return _make_path(_kind("source", references, store_dir, self_reference), NixHash("sha256", nar_sha256), name, store_dir)


def flat_output_path(name: str, file_hash: NixHash, store_dir: str = STORE_DIR) -> StorePath:
    """The store path of a file added by the hash of its contents (`fixed:sha256`), as `nix-store --add-fixed` computes it."""
    return _hashed_twice("", file_hash, name, store_dir)


def recursive_output_path(name: str, nar_hash: NixHash, store_dir: str = STORE_DIR) -> StorePath:
    """The store path of content without references, added by its NAR hash of any kind (`fixed:r:sha512`).

    `nix-store --add-fixed --recursive` computes it so; sha256 is as in `fixed_output_path`.
    """
    if nar_hash.algorithm == "sha256":
        return fixed_output_path(name, nar_hash.digest, store_dir=store_dir)
    return _hashed_twice("r:", nar_hash, name, store_dir)


def text_path(name: str, text_sha256: bytes, references: Iterable[StorePath] = (), store_dir: str = STORE_DIR) -> StorePath:
    """The store path of a text (`text:sha256`), as `builtins.toFile` and derivations have it.

    Source: nix, src/libstore/store-api.cc, makeTextPath.
    """
    return _make_path(_kind("text", references, store_dir), NixHash("sha256", text_sha256), name, store_dir)


def _kind(kind: str, references: Iterable[StorePath], store_dir: str, self_reference: bool = False) -> str:
    return ":".join([kind, *sorted(path.absolute(store_dir) for path in references), *(["self"] if self_reference else [])])


def _hashed_twice(prefix: str, content_hash: NixHash, name: str, store_dir: str) -> StorePath:
    inner = hashlib.sha256(f"fixed:out:{prefix}{content_hash.algorithm}:{content_hash.digest.hex()}:".encode()).digest()
    return _make_path("output:out", NixHash("sha256", inner), name, store_dir)


def _make_path(kind: str, content_hash: NixHash, name: str, store_dir: str) -> StorePath:
    check_store_path_name(name)
    fingerprint = f"{kind}:{content_hash.algorithm}:{content_hash.digest.hex()}:{store_dir}:{name}"
    digest = hashlib.sha256(fingerprint.encode()).digest()
    folded = bytearray(OUTPUT_HASH_SIZE)
    for position, byte in enumerate(digest):
        folded[position % OUTPUT_HASH_SIZE] ^= byte
    return StorePath(bytes(folded), name)

"""PathInfo: the description of one store path, and its encoding (the message `PathInfo`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tvix_store.errors import ConflictError, InvalidError
from tvix_store.model import nixbase32, wire
from tvix_store.model.content_address import ContentAddress
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node, decode_node, encode_node
from tvix_store.model.signature import Signature, check_count, fingerprint
from tvix_store.model.store_path import HASH_CHARACTERS, STORE_DIR, StorePath
from tvix_store.model.trust import NOBODY, Trust

_ROOT, _REFERENCE, _NAR_INFO = 1, 2, 3
"""Fields of the message `PathInfo`."""


@dataclass(frozen=True, slots=True)
class NarFacts:
    """Facts of a node's NAR: its size (bytes) and SHA-256 (32 bytes)."""

    size: int
    sha256: bytes

    def __post_init__(self) -> None:
        wire.check_size(self.size)
        if len(self.sha256) != 32:
            raise InvalidError(f"nar_sha256 must be 32 bytes, got {len(self.sha256)}")

    def __repr__(self) -> str:
        return f"NarFacts(size={self.size}, sha256=bytes.fromhex('{self.sha256.hex()}'))"


@dataclass(frozen=True)
class PathInfo:
    """One store path: its root node, references, NAR facts, signatures, deriver and content address.

    `deriver` is the `.drv` path that built it, its name without `.drv`, as the protocol has it.
    """

    store_path: StorePath
    node: Node
    nar: NarFacts
    # Factories, not defaults: a default would be a class attribute and hide `__getattr__` below.
    references: tuple[StorePath, ...] = field(default_factory=tuple)
    signatures: tuple[Signature, ...] = field(default_factory=tuple)
    deriver: StorePath | None = field(default_factory=lambda: None)
    ca: ContentAddress | None = field(default_factory=lambda: None)

    @classmethod
    def stored(cls, encoded: bytes) -> PathInfo:
        """A path info from canonical bytes that were checked before. They are parsed at the first look inside.

        A server passes such bytes through at a tenth of the cost of parsing them.
        """
        self = cls.__new__(cls)
        self.__dict__["encoded"] = encoded
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name not in _FIELDS or "encoded" not in self.__dict__:
                raise AttributeError(name)
            if name == "store_path":  # all that a lookup of references wants
                self.__dict__[name] = StorePath.from_base_name(_root_name(self.encoded).decode())
            else:
                self.__dict__.update(PathInfo.decode(self.encoded).__dict__)
            return self.__dict__[name]

    @cached_property
    def encoded(self) -> bytes:
        """The canonical encoding."""
        nar_info = b"".join(
            (
                wire.uint_field(1, self.nar.size),
                wire.bytes_field(2, self.nar.sha256),
                *(wire.message_field(3, signature.encode()) for signature in self.signatures),
                *(wire.message_field(4, str(reference).encode()) for reference in self.references),
                wire.bytes_field(5, _encode_store_path(self.deriver)) if self.deriver else b"",
                wire.message_field(6, self.ca.encode()) if self.ca else b"",
            )
        )
        root = wire.message_field(1, encode_node(str(self.store_path).encode(), self.node))
        listed = b"".join(wire.message_field(2, reference.output_hash) for reference in self.references)
        return root + listed + wire.message_field(3, nar_info)

    @property
    def output_hashes(self) -> tuple[bytes, list[bytes]]:
        """The output hash of the path, and those of its references, itself among them where it refers to itself.

        Of a stored path info, nothing else is parsed. That takes a fifth of the time.
        """
        if "references" in self.__dict__:
            return self.store_path.output_hash, [each.output_hash for each in self.references]
        references = [wire.as_bytes(number, value) for number, value in wire.fields(self.encoded) if number == _REFERENCE]
        return nixbase32.decode(_root_name(self.encoded)[:HASH_CHARACTERS].decode("latin-1")), references

    @property
    def in_brief(self) -> tuple[StorePath, Node, int]:
        """The store path, the root node, and the bytes of the NAR.

        Of a stored path info, nothing else is parsed: it may have 50,000 references, which take a second.
        """
        if "references" in self.__dict__:
            return self.store_path, self.node, self.nar.size
        parts = {number: value for number, value in wire.fields(self.encoded) if number != _REFERENCE}
        name, node = decode_node(wire.as_bytes(_ROOT, parts[_ROOT]))
        nar_info = wire.fields(wire.as_bytes(_NAR_INFO, parts[_NAR_INFO]))
        size = next((wire.as_uint(number, value) for number, value in nar_info if number == 1), 0)
        return StorePath.from_base_name(name.decode()), node, size

    @classmethod
    def decode(cls, data: bytes) -> PathInfo:
        """Read a message `PathInfo`.

        Raises:
            InvalidError: the message is malformed, or breaks one of these rules. It has a root node and NAR info. The root's name
                is that of a store path. `references` and `reference_names` match one to one, in order. There are at most
                MAX_SIGNATURES distinct signatures.
        """
        root: list[bytes] = []
        nar_info: list[bytes] = []
        digests: list[bytes] = []
        for number, value in wire.fields(data):
            body = wire.as_bytes(number, value)
            match number:
                case 1:
                    wire.gather(root, body, "node")
                case 2:
                    digests.append(body)
                case 3:
                    wire.gather(nar_info, body, "narinfo")
                case _:
                    raise InvalidError(f"path info: unknown field {number}")
        if not root:
            raise InvalidError("path info: it has no root node")
        if not nar_info:
            raise InvalidError("path info: it has no narinfo")
        name, node = decode_node(b"".join(root))
        try:
            store_path = StorePath.from_base_name(name.decode())
        except UnicodeDecodeError:
            raise InvalidError(f"path info: the root node's name {name[:100]!r} is not a store path") from None
        info = _decode_nar_info(store_path, node, b"".join(nar_info))
        if [reference.output_hash for reference in info.references] != digests:
            raise InvalidError(
                f"path info of {store_path}: references ({len(digests)}) and "
                f"reference_names ({len(info.references)}) do not match one to one"
            )
        return info

    @staticmethod
    def root_of(encoded: bytes) -> Node:
        """The root node in canonical bytes that were checked before, at a fifth of the price of parsing them all.

        Raises:
            InvalidError: there is none.
        """
        number, value = next(wire.fields(encoded), (0, None))
        if number != 1:
            raise InvalidError("path info: it has no root node")
        return decode_node(wire.as_bytes(number, value))[1]

    def _repr_html_(self) -> str:
        """The fields as a table, for notebooks."""
        from tvix_store.model import html

        rows = [
            ("root node", ", ".join(filter(None, html.node_cells(self.node)))),
            ("NAR size", f"{self.nar.size} bytes"),
            ("NAR hash", str(NixHash("sha256", self.nar.sha256))),
            *(("reference", str(reference)) for reference in self.references),
            *(("signature", str(signature)) for signature in self.signatures),
            *([("deriver", f"{self.deriver}.drv")] if self.deriver else []),
            *([("content address", str(self.ca))] if self.ca else []),
        ]
        return html.table(str(self.store_path), ("field", "value"), rows, len(rows))

    def fingerprint(self, store_dir: str = STORE_DIR) -> bytes:
        """The bytes that a signature of this path signs."""
        return fingerprint(self.store_path, self.nar.sha256, self.nar.size, self.references, store_dir)

    def with_signatures(self, signatures: Iterable[Signature]) -> PathInfo:
        """The same path with `signatures` added to its own, each once, its own first."""
        merged = tuple(dict.fromkeys((*self.signatures, *signatures)))
        return self if merged == self.signatures else replace(self, signatures=merged)

    def merged(self, newer: PathInfo, trust: Trust = NOBODY) -> PathInfo:
        """This path info after `newer` was put for the same path. Signatures are united; a content address may be added.

        No signature covers the deriver. If a trusted key has signed `newer`, its deriver is added, or replaces the old one. Else a
        deriver is never replaced, and is added only if no trusted key has signed this path info. An unsigned `newer` adds a deriver
        only if this path info is unsigned too.

        Another root node of the same NAR is taken. Its directories state sizes by another rule, and the caller wants that one.

        Raises:
            ConflictError: `newer` differs in a part that signatures cover: the name, the NAR or the references.
            InvalidError: there is no place for its signatures.
        """
        difference = self.difference(newer)
        if difference is not None:
            raise ConflictError(f"{self.store_path} is in the store {difference}; it is not overwritten")
        signatures = self.signatures
        if not set(newer.signatures).issubset(signatures):
            signatures = trust.united(signatures, newer.signatures, self.fingerprint(trust.store_dir))
        deriver = self._deriver_after(newer, trust)
        ca = self.ca or newer.ca
        if (newer.node, signatures, deriver, ca) == (self.node, self.signatures, self.deriver, self.ca):
            return self
        return replace(self, node=newer.node, signatures=signatures, deriver=deriver, ca=ca)

    def _deriver_after(self, newer: PathInfo, trust: Trust) -> StorePath | None:
        if newer.deriver is None or newer.deriver == self.deriver:
            return self.deriver
        message = self.fingerprint(trust.store_dir)
        if trust.good(newer.signatures, message):
            return newer.deriver
        if trust.good(self.signatures, message) or (self.signatures and not newer.signatures):
            return self.deriver
        return self.deriver or newer.deriver

    def difference(self, other: PathInfo) -> str | None:
        """The difference of `other`, of the same output hash, in the parts that signatures cover. None if there is none."""
        if other.store_path != self.store_path:
            return f"by this name, not as {other.store_path}"
        if other.nar != self.nar:
            return f"with NAR hash {self.nar.sha256.hex()}, not {other.nar.sha256.hex()}"
        own, others = set(self.references), set(other.references)
        if own != others:
            return f"with other references ({min(map(str, own ^ others))} is in one of them only)"
        return None


_FIELDS = frozenset(each.name for each in fields(PathInfo))


def _decode_nar_info(store_path: StorePath, node: Node, data: bytes) -> PathInfo:
    nar_size, nar_sha256 = 0, b""
    signatures: dict[bytes, None] = {}  # in order
    references: list[StorePath] = []
    deriver: list[bytes] = []
    ca: list[bytes] = []
    for number, value in wire.fields(data):
        match number:
            case 1:
                nar_size = wire.as_uint(number, value)
            case 2:
                nar_sha256 = wire.as_bytes(number, value)
            case 3:
                signatures[wire.as_bytes(number, value)] = None
            case 4:
                references.append(StorePath.from_base_name(wire.as_text(number, value)))
            case 5:
                wire.gather(deriver, wire.as_bytes(number, value), "deriver")
            case 6:
                wire.gather(ca, wire.as_bytes(number, value), "ca")
            case _:
                raise InvalidError(f"narinfo: unknown field {number}")
    check_count(signatures)
    return PathInfo(
        store_path,
        node,
        NarFacts(nar_size, nar_sha256),
        tuple(references),
        tuple(dict.fromkeys(map(Signature.decode, signatures))),
        _decode_store_path(b"".join(deriver)) if deriver else None,
        ContentAddress.decode(b"".join(ca)) if ca else None,
    )


def _encode_store_path(path: StorePath) -> bytes:
    return wire.bytes_field(1, path.name.encode()) + wire.bytes_field(2, path.output_hash)


def _decode_store_path(data: bytes) -> StorePath:
    name, digest = "", b""
    for number, value in wire.few_fields(data):
        match number:
            case 1:
                name = wire.as_text(number, value)
            case 2:
                digest = wire.as_bytes(number, value)
            case _:
                raise InvalidError(f"deriver: unknown field {number}")
    return StorePath(digest, name)


def belongs_to(encoded: bytes, output_hash: bytes) -> bool:
    """Whether the canonical encoding of a path info is that of the path with `output_hash`: its root node's name says so.

    Nothing else is looked at. It takes 0.4 µs, and is done for each lookup.
    """
    try:
        # Before the name there are, of path info, node and name, a tag and a length in one or two bytes.
        at = 2 if encoded[1] < 128 else 3
        at += 2 if encoded[at + 1] < 128 else 3
        at += 2 if encoded[at + 1] < 128 else 3
        return nixbase32.number(encoded[at : at + 32]) == int.from_bytes(output_hash, "little")
    except (IndexError, ValueError):
        return False


def _root_name(encoded: bytes) -> bytes:
    """The base name of the store path in a canonical encoding."""
    root = next((wire.as_bytes(number, value) for number, value in wire.fields(encoded) if number == _ROOT), b"")
    name, _ = decode_node(root)
    return name

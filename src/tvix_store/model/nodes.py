"""Nodes: files, directories and symlinks. A name in a directory, or a store path, refers to one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.digest import Digest
from tvix_store.model.names import check_target
from tvix_store.model.wire import check_size


@dataclass(frozen=True, slots=True)
class FileNode:
    """A regular file: the digest and size (bytes) of its blob."""

    digest: Digest
    size: int
    executable: bool = False

    def __post_init__(self) -> None:
        check_size(self.size)

    def encode(self, name: bytes = b"") -> bytes:
        return _digest_and_size(name, self.digest, self.size) + (b"\x20\x01" if self.executable else b"")


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A directory: its digest, and its size by one of the two size rules (see `SizeRule`)."""

    digest: Digest
    size: int

    def __post_init__(self) -> None:
        check_size(self.size)

    def encode(self, name: bytes = b"") -> bytes:
        return _digest_and_size(name, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class SymlinkNode:
    """A symbolic link: its target, not resolved."""

    target: bytes

    def __post_init__(self) -> None:
        check_target(self.target)

    def encode(self, name: bytes = b"") -> bytes:
        return wire.bytes_field(1, name) + wire.bytes_field(2, self.target)


Node: TypeAlias = FileNode | DirectoryNode | SymlinkNode


def _digest_and_size(name: bytes, digest: Digest, size: int) -> bytes:
    return b"%b\x12\x20%b%b" % (wire.bytes_field(1, name), digest.raw, b"\x18" + wire.varint(size) if size else b"")


def decode_file(data: bytes) -> tuple[bytes, FileNode]:
    return _decode_canonical_file(data) or _decode_any_file(data)


def _decode_canonical_file(data: bytes) -> tuple[bytes, FileNode] | None:
    """A node whose name has less than 128 bytes, as `FileNode.encode` writes it: nearly every one, in a quarter of the time."""
    if len(data) < 36 or data[0] != 0x0A:
        return None
    name_end = 2 + data[1]
    digest_start = name_end + 2
    at = digest_start + 32
    if data[1] > 127 or data[name_end:digest_start] != b"\x12\x20" or len(data) < at:
        return None
    size, executable = 0, False
    if data[at : at + 1] == b"\x18":
        size, at = wire.read_varint(data, at + 1)
    if data[at:] == b"\x20\x01":
        executable = True
    elif at != len(data):
        return None
    return data[2:name_end], FileNode(Digest(data[digest_start : digest_start + 32]), size, executable)


def _decode_any_file(data: bytes) -> tuple[bytes, FileNode]:
    name, digest, size, executable = b"", b"", 0, False
    for field, value in wire.few_fields(data):
        match field:
            case 1:
                name = wire.as_bytes(field, value)
            case 2:
                digest = wire.as_bytes(field, value)
            case 3:
                size = wire.as_uint(field, value)
            case 4:
                executable = bool(wire.as_uint(field, value))
            case _:
                raise InvalidError(f"file node: unknown field {field}")
    return name, FileNode(Digest(digest), size, executable)


def decode_directory(data: bytes) -> tuple[bytes, DirectoryNode]:
    name, digest, size = b"", b"", 0
    for field, value in wire.few_fields(data):
        match field:
            case 1:
                name = wire.as_bytes(field, value)
            case 2:
                digest = wire.as_bytes(field, value)
            case 3:
                size = wire.as_uint(field, value)
            case _:
                raise InvalidError(f"directory node: unknown field {field}")
    return name, DirectoryNode(Digest(digest), size)


def decode_symlink(data: bytes) -> tuple[bytes, SymlinkNode]:
    name, target = b"", b""
    for field, value in wire.few_fields(data):
        match field:
            case 1:
                name = wire.as_bytes(field, value)
            case 2:
                target = wire.as_bytes(field, value)
            case _:
                raise InvalidError(f"symlink node: unknown field {field}")
    return name, SymlinkNode(target)


def encode_node(name: bytes, node: Node) -> bytes:
    """The message `Node` (snix: `Entry`): a oneof of directory=1, file=2, symlink=3."""
    return wire.message_field(_ONEOF[type(node)], node.encode(name))


_ONEOF: dict[type[Node], int] = {DirectoryNode: 1, FileNode: 2, SymlinkNode: 3}


def decode_node(data: bytes) -> tuple[bytes, Node]:
    """The name and the node in a message `Node`; the name is not checked.

    Raises:
        InvalidError: the message is malformed, or holds no node.
    """
    kind = 0
    pieces: list[bytes] = []
    for field, value in wire.few_fields(data):
        if field not in _DECODERS:
            raise InvalidError(f"node: unknown field {field}")
        body = wire.as_bytes(field, value)
        # Of a oneof the last member counts, and pieces of the same member are merged, as protobuf has it.
        if field != kind:
            kind, pieces = field, []
        pieces.append(body)
    if not kind:
        raise InvalidError("node: neither directory, file nor symlink is set")
    return _DECODERS[kind](b"".join(pieces))


_DECODERS: dict[int, Callable[[bytes], tuple[bytes, Node]]] = {1: decode_directory, 2: decode_file, 3: decode_symlink}

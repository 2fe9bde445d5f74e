"""The protobuf runtime as an oracle: the messages of the model, declared here once more from the design's table."""

from __future__ import annotations

from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bytes": _Field.TYPE_BYTES,
    "string": _Field.TYPE_STRING,
    "uint64": _Field.TYPE_UINT64,
    "bool": _Field.TYPE_BOOL,
    # The enum CA.Hash: an open enum is an int32 on the wire.
    "enum": _Field.TYPE_INT32,
}
Schema: TypeAlias = dict[str, list[tuple[int, str, str]]]
_SCHEMA: Schema = {
    "FileNode": [(1, "name", "bytes"), (2, "digest", "bytes"), (3, "size", "uint64"), (4, "executable", "bool")],
    "DirectoryNode": [(1, "name", "bytes"), (2, "digest", "bytes"), (3, "size", "uint64")],
    "SymlinkNode": [(1, "name", "bytes"), (2, "target", "bytes")],
    "Directory": [(1, "directories", "*DirectoryNode"), (2, "files", "*FileNode"), (3, "symlinks", "*SymlinkNode")],
    "Node": [(1, "directory", "|DirectoryNode"), (2, "file", "|FileNode"), (3, "symlink", "|SymlinkNode")],
    "Signature": [(1, "name", "string"), (2, "data", "bytes")],
    "StorePath": [(1, "name", "string"), (2, "digest", "bytes")],
    "CA": [(1, "type", "enum"), (2, "digest", "bytes")],
    "NARInfo": [
        (1, "nar_size", "uint64"),
        (2, "nar_sha256", "bytes"),
        (3, "signatures", "*Signature"),
        (4, "reference_names", "*string"),
        (5, "deriver", "StorePath"),
        (6, "ca", "CA"),
    ],
    "PathInfo": [(1, "node", "Node"), (2, "references", "*bytes"), (3, "narinfo", "NARInfo")],
}
"""Field number, name and type; `*` is a repeated field, `|` a member of a oneof."""


def _declare(schema: Schema) -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package="oracle", syntax="proto3")
    for name, fields in schema.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            field = message.field.add(number=number, name=field_name, label=_Field.LABEL_OPTIONAL)
            if kind.startswith("*"):
                field.label = _Field.LABEL_REPEATED
            if kind.startswith("|"):
                field.oneof_index = 0
            plain = kind.lstrip("*|")
            if plain in _SCALARS:
                field.type = _SCALARS[plain]
            else:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".oracle.{plain}"
        if any(kind.startswith("|") for _, _, kind in fields):
            message.oneof_decl.add(name="one")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"oracle.{name}")) for name in schema}


_CLASSES = _declare(_SCHEMA)
_CA_TYPES = {
    **dict(enumerate([(Method.NAR, "sha256"), (Method.NAR, "sha1"), (Method.NAR, "sha512"), (Method.NAR, "md5")])),
    4: (Method.TEXT, "sha256"),
    **dict(enumerate([(Method.FLAT, "sha1"), (Method.FLAT, "md5"), (Method.FLAT, "sha256"), (Method.FLAT, "sha512")], 5)),
    1000: (Method.NAR, "blake3"),
    1001: (Method.FLAT, "blake3"),
}


def make(message: str, /, **values: Any) -> Any:
    """A message of the runtime."""
    return _CLASSES[message](**values)


def encode(message: str, /, **values: Any) -> bytes:
    """What the runtime writes; concatenated encodings are the encoding of the merged message."""
    return bytes(make(message, **values).SerializeToString(deterministic=True))


def parse(message: str, data: bytes) -> Any:
    """What the runtime reads, or None where it refuses, or knows a field not."""
    try:
        read = _CLASSES[message].FromString(data)
    except DecodeError:
        return None
    return None if _has_unknown_fields(read) else read


def _has_unknown_fields(message: Message) -> bool:
    if len(UnknownFieldSet(message)):
        return True
    children: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            children.extend([value] if isinstance(value, Message) else value)
    return any(map(_has_unknown_fields, children))


def node_message(name: bytes, node: Node) -> Any:
    """A node of the model as FileNode, DirectoryNode or SymlinkNode."""
    match node:
        case FileNode(digest, size, executable):
            return make("FileNode", name=name, digest=digest.raw, size=size, executable=executable)
        case DirectoryNode(digest, size):
            return make("DirectoryNode", name=name, digest=digest.raw, size=size)
        case SymlinkNode(target):
            return make("SymlinkNode", name=name, target=target)


def directory_message(directory: Directory) -> Any:
    """A directory of the model."""
    lists: dict[type[Node], list[Message]] = {DirectoryNode: [], FileNode: [], SymlinkNode: []}
    for name, node in directory.entries.items():
        lists[type(node)].append(node_message(name, node))
    return make("Directory", directories=lists[DirectoryNode], files=lists[FileNode], symlinks=lists[SymlinkNode])


def root_message(name: bytes, node: Node) -> Any:
    """A node of the model as Node, with its name."""
    member = {FileNode: "file", DirectoryNode: "directory", SymlinkNode: "symlink"}[type(node)]
    return make("Node", **{member: node_message(name, node)})


def path_info_message(path_info: PathInfo) -> Any:
    """A path info of the model."""
    narinfo: dict[str, Any] = {
        "nar_size": path_info.nar.size,
        "nar_sha256": path_info.nar.sha256,
        "signatures": [make("Signature", name=each.name, data=each.data) for each in path_info.signatures],
        "reference_names": [str(each) for each in path_info.references],
    }
    if path_info.deriver is not None:
        narinfo["deriver"] = make("StorePath", name=path_info.deriver.name, digest=path_info.deriver.output_hash)
    if path_info.ca is not None:
        stated = (path_info.ca.method, path_info.ca.hash.algorithm)
        [kind] = [number for number, known in _CA_TYPES.items() if known == stated]
        narinfo["ca"] = make("CA", type=kind, digest=path_info.ca.hash.digest)
    return make(
        "PathInfo",
        node=root_message(str(path_info.store_path).encode(), path_info.node),
        references=[each.output_hash for each in path_info.references],
        narinfo=make("NARInfo", **narinfo),
    )


def to_node(kind: str, message: Any) -> Node:
    """The node of the model behind a FileNode, DirectoryNode or SymlinkNode."""
    match kind:
        case "file":
            return FileNode(Digest(message.digest), message.size, message.executable)
        case "directory":
            return DirectoryNode(Digest(message.digest), message.size)
        case _:
            return SymlinkNode(message.target)


def to_directory(message: Any) -> Directory | None:
    """The directory of the model, or None where the lists are not sorted or a name stands twice."""
    lists = {"directory": message.directories, "file": message.files, "symlink": message.symlinks}
    entries: dict[bytes, Node] = {}
    for kind, children in lists.items():
        if [child.name for child in children] != sorted(child.name for child in children):
            return None
        for child in children:
            if child.name in entries:
                return None
            entries[child.name] = to_node(kind, child)
    return Directory(entries)


def to_path_info(message: Any) -> PathInfo | None:
    """The path info of the model, or None where something is missing, or the references do not match."""
    member = message.node.WhichOneof("one")
    narinfo = message.narinfo
    if member is None or not message.HasField("narinfo"):
        return None
    root = getattr(message.node, member)
    references = tuple(StorePath.from_base_name(name) for name in narinfo.reference_names)
    if [each.output_hash for each in references] != list(message.references):
        return None
    ca = None
    if narinfo.HasField("ca"):
        if narinfo.ca.type not in _CA_TYPES:
            return None
        method, algorithm = _CA_TYPES[narinfo.ca.type]
        ca = ContentAddress(method, NixHash(algorithm, narinfo.ca.digest))
    return PathInfo(
        StorePath.from_base_name(root.name.decode()),
        to_node(member, root),
        NarFacts(narinfo.nar_size, narinfo.nar_sha256),
        references,
        tuple(Signature(each.name, each.data) for each in narinfo.signatures),
        StorePath(narinfo.deriver.digest, narinfo.deriver.name) if narinfo.HasField("deriver") else None,
        ca,
    )

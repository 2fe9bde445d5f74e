"""The JSON forms of nodes and path infos, close to those of `nix path-info --json` and `nix store ls --json`. See docs/cli.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tvix_store.errors import InvalidError, StoreError
from tvix_store.model.content_address import ContentAddress
from tvix_store.model.digest import Digest
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath

T = TypeVar("T")

_DRV = ".drv"
_KNOWN = frozenset(("path", "root", "narHash", "narSize", "references", "deriver", "signatures", "ca"))
_OF_NIX = frozenset(
    (
        "closureSize",
        "compression",
        "downloadHash",
        "downloadSize",
        "registrationTime",
        "storeDir",
        "ultimate",
        "url",
        "valid",
        "version",
    )
)
"""Keys of Nix that we do not keep."""


def node_to_json(node: Node) -> dict[str, object]:
    match node:
        case DirectoryNode(digest, size):
            return {"type": "directory", "digest": str(digest), "size": size}
        case FileNode(digest, size, executable):
            return {"type": "regular", "digest": str(digest), "size": size, "executable": executable}
        case SymlinkNode(target):
            return {"type": "symlink", "target": os.fsdecode(target)}


def path_info_to_json(path_info: PathInfo, store_dir: str) -> dict[str, object]:
    deriver = path_info.deriver
    return {
        "path": path_info.store_path.absolute(store_dir),
        "root": node_to_json(path_info.node),
        "narHash": NixHash("sha256", path_info.nar.sha256).sri,
        "narSize": path_info.nar.size,
        "references": [reference.absolute(store_dir) for reference in path_info.references],
        "deriver": deriver.absolute(store_dir) + _DRV if deriver else None,
        "signatures": [str(signature) for signature in path_info.signatures],
        "ca": str(path_info.ca) if path_info.ca else None,
    }


def node_from_json(value: object) -> Node:
    """Raises InvalidError if `value` has not the form that `node_to_json` makes."""
    kind = _field(value, "type", str)
    match kind:
        case "directory":
            return DirectoryNode(_field(value, "digest", Digest.parse), _field(value, "size", _number))
        case "regular":
            digest, size = _field(value, "digest", Digest.parse), _field(value, "size", _number)
            return FileNode(digest, size, _field(value, "executable", bool, default=False))
        case "symlink":
            return SymlinkNode(_field(value, "target", os.fsencode))
    raise InvalidError(f"root: unknown type {kind!r} (known: directory, regular, symlink)")


def root_from_json(value: object) -> Node:
    """The root node in the JSON form of a path info.

    Raises:
        InvalidError: it is missing or malformed.
    """
    return node_from_json(_field(value, "root", _mapping))


def nar_from_json(value: object) -> NarFacts | None:
    """The NAR facts in the JSON form of a path info, or None where they are left out.

    Raises:
        InvalidError: one of the two is missing, or malformed.
    """
    if not {"narHash", "narSize"} & _mapping(value).keys():
        return None
    nar_hash = _field(value, "narHash", NixHash.parse)
    if nar_hash.algorithm != "sha256":
        raise InvalidError(f"path info: narHash is {nar_hash.algorithm}, not sha256")
    return NarFacts(_field(value, "narSize", _number), nar_hash.digest)


def path_info_from_json(value: object, store_dir: str, nar: NarFacts) -> PathInfo:
    """Read the form that `path_info_to_json` makes, except for the NAR facts.

    Raises:
        InvalidError: a key is missing, unknown or has a malformed value; the error names it.
    """
    for key in _mapping(value):
        if key not in _KNOWN | _OF_NIX:
            raise InvalidError(f"path info: unknown key {key!r} (known: {', '.join(sorted(_KNOWN))})")

    def store_path(text: str) -> StorePath:
        return StorePath.parse(text, store_dir)

    return PathInfo(
        store_path=_field(value, "path", store_path),
        node=root_from_json(value),
        nar=nar,
        references=tuple(map(store_path, _field(value, "references", _texts, default=[]))),
        signatures=tuple(map(Signature.parse, _field(value, "signatures", _texts, default=[]))),
        deriver=_field(value, "deriver", lambda text: store_path(text.removesuffix(_DRV)), default=None),
        ca=_field(value, "ca", ContentAddress.parse, default=None),
    )


_MISSING: Any = object()


def _field(value: object, key: str, read: Callable[[Any], T], *, default: Any = _MISSING) -> T:
    found = _mapping(value).get(key)
    if found is None:
        if default is not _MISSING:
            result: T = default
            return result
        raise InvalidError(f"path info: {key} is missing")
    try:
        return read(found)
    except StoreError as error:
        raise InvalidError(f"path info: {key}: {error}") from None
    except (TypeError, AttributeError, ValueError):
        raise InvalidError(f"path info: {key} has a malformed value") from None


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError("path info: it is not a JSON object")
    return value


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError
    return value

"""Nix's descriptions of store paths, in JSON: `nix path-info --json` in all its forms, and `exportReferencesGraph`.

There are four forms. Nix until 2.18 and Lix write a list of objects. Nix from 2.19 on writes an object by path, and with
`--json-format` 2 and 3 the same under "info". A derivation with `__structuredAttrs` and `exportReferencesGraph` has an object with
a list of objects for each graph, among other attributes.
Source: the JSON of Nix 2.8, and the page "Store object info" of the Nix manual, 2.33 and 2.36.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tvix_store.errors import InvalidError, StoreError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath

T = TypeVar("T")
Json = Mapping[str, Any]

_DRV = ".drv"
_METHODS = {"nar": Method.NAR, "flat": Method.FLAT, "text": Method.TEXT}


@dataclass(frozen=True, slots=True)
class StatedPath:
    """A store path as Nix describes it: a path info, but for the root node."""

    store_path: StorePath
    nar: NarFacts
    references: tuple[StorePath, ...] = ()
    signatures: tuple[Signature, ...] = ()
    deriver: StorePath | None = None
    ca: ContentAddress | None = None

    def path_info(self, node: Node) -> PathInfo:
        """Its path info, when its root node is known."""
        return PathInfo(self.store_path, node, self.nar, self.references, self.signatures, self.deriver, self.ca)


def objects_by_path(document: object) -> dict[str, Json | None]:
    """The object for each path in `document`, or None where Nix says that the path is not valid. Paths are as Nix writes them.

    Raises:
        InvalidError: the document has none of the forms.
    """
    if isinstance(document, dict) and isinstance(document.get("info"), dict):
        document = document["info"]
    if isinstance(document, list):
        return dict(map(_in_list, document))
    if isinstance(document, dict):
        if all(_is_by_path(key, value) for key, value in document.items()):
            return dict(document)
        graphs = [value for value in document.values() if _is_graph(value)]
        if graphs:
            return dict(_in_list(each) for graph in graphs for each in graph)
    raise InvalidError("not what nix path-info --json prints, nor what exportReferencesGraph writes: no store paths are in it")


def stated_path(path: str, stated: Json, store_dir: str) -> StatedPath:
    """Read the object of one path.

    Raises:
        InvalidError: a value is missing, malformed, or one that our path infos cannot have. The error names path and key.
    """
    reader = _Reader(path, stated, store_dir)
    return StatedPath(
        store_path=reader.read(path, reader.store_path, "path"),
        nar=NarFacts(reader.field("narSize", _number), reader.field("narHash", _sha256)),
        references=reader.field("references", reader.references, ()),
        signatures=reader.field("signatures", _signatures, ()),
        deriver=reader.field("deriver", reader.deriver, None),
        ca=reader.field("ca", _content_address, None),
    )


def _in_list(value: object) -> tuple[str, Json | None]:
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        raise InvalidError("in the list of store paths is something else than objects with a path")
    return value["path"], None if value.get("valid") is False else value


def _is_by_path(key: str, value: object) -> bool:
    return len(key.rpartition("/")[2]) > 32 and (value is None or (isinstance(value, dict) and "narHash" in value))


def _is_graph(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "narHash" in each for each in value)


_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the object of one path."""

    path: str
    stated: Json
    store_dir: str

    def field(self, key: str, read: Callable[[Any], T], default: Any = _MISSING) -> T:
        value = self.stated.get(key)
        if value is None and default is not _MISSING:
            result: T = default
            return result
        return self.read(value, read, key)

    def read(self, value: object, read: Callable[[Any], T], key: str) -> T:
        try:
            return read(value)
        except StoreError as error:
            raise InvalidError(f"{self.path}: {key}: {error}") from None
        except (TypeError, AttributeError, ValueError, KeyError):
            raise InvalidError(f"{self.path}: {key} is {'missing' if value is None else 'malformed'}") from None

    def store_path(self, text: str) -> StorePath:
        return StorePath.parse(text, self.store_dir)

    def references(self, value: object) -> tuple[StorePath, ...]:
        return tuple(dict.fromkeys(map(self.store_path, _list(value))))

    def deriver(self, text: str) -> StorePath:
        if not text.endswith(_DRV):
            raise InvalidError(f"{text[:250]!r} does not end in {_DRV}")
        return self.store_path(text.removesuffix(_DRV))


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _hash(value: str | Json) -> NixHash:
    """A hash as a text, or in parts."""
    return NixHash.parse(value if isinstance(value, str) else f"{value['algorithm']}:{value['hash']}")


def _sha256(value: str | Json) -> bytes:
    nar_hash = _hash(value)
    if nar_hash.algorithm != "sha256":
        raise InvalidError(f"it is {nar_hash.algorithm}, not sha256")
    return nar_hash.digest


def _content_address(value: str | Json) -> ContentAddress:
    if isinstance(value, str):
        return ContentAddress.parse(value)
    method = _METHODS.get(value["method"])
    if method is None:
        raise InvalidError(f"the method {value['method']!r} is not one that can be kept (known: {', '.join(_METHODS)})")
    return ContentAddress(method, _hash(value["hash"]))


def _signatures(value: object) -> tuple[Signature, ...]:
    texts = [each if isinstance(each, str) else f"{each['keyName']}:{each['sig']}" for each in _list(value)]
    return tuple(dict.fromkeys(map(Signature.parse, texts)))

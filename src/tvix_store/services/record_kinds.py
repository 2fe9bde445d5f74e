"""The kinds of records, and how each relates to content.

A record's key begins with its kind. Collection reads this table: a record either keeps content alive, or goes with the content that
it is about. Who adds a kind adds a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import Node, decode_node

Content: TypeAlias = Node | Digest | None
"""A root node with all that it reaches, a blob, or nothing."""
_LINK_HEAD = 40
"""Bytes before the node in the value of a `nar:` record."""
_DOCUMENT_DIGEST = slice(1, 33)
"""Where the blob's digest stands in the value of a `document:` record."""


@dataclass(frozen=True, slots=True)
class RecordKind:
    """A kind of record.

    prefix: The beginning of its keys.
    content: The content that a value refers to. Raises InvalidError for a damaged value.
    follows: Whether the record describes content, and is worth nothing without it. Such a record goes with its content, and is
        made again on demand. All other records keep their content alive.
    """

    prefix: bytes
    content: Callable[[bytes], Content]
    follows: bool

    def content_of(self, value: bytes) -> Content:
        """The content that a value refers to.

        Raises:
            CorruptError: the value is damaged.
        """
        try:
            return self.content(value)
        except InvalidError as error:
            raise CorruptError(f"a record {self.prefix.decode()} is damaged: {error}") from None


def _nothing(_: bytes) -> Content:
    return None


def _linked_node(value: bytes) -> Content:
    _, node = decode_node(value[_LINK_HEAD:])
    return node


def _document(value: bytes) -> Content:
    return Digest(value[_DOCUMENT_DIGEST])


LINK = RecordKind(b"nar:", _linked_node, follows=True)
"""The link from the hash of a NAR, or of a compressed file of it, to its root node (operations.nars.links)."""
FILE = RecordKind(b"zstd:", _nothing, follows=True)
"""Size and hash of the zstd file of a NAR, by the hash of the NAR (operations.nars.links)."""
PLAN = RecordKind(b"plan:", Digest, follows=True)
"""A plan for a NAR, which is a blob, by the digest of the nameless root node (operations.nars.kept_plans)."""
KINDS = (
    LINK,
    FILE,
    PLAN,
    # A log, a realisation, a build trace or debug information (operations.paths.documents).
    RecordKind(b"document:", _document, follows=False),
    # That a named cache holds content, which stands in the store that it is part of (layers.holding.held).
    RecordKind(b"held:", _nothing, follows=True),
    # When a path was used last (services.removal).
    RecordKind(b"used:", _nothing, follows=True),
    # The time of a store or a named cache (operations.collection.hours).
    RecordKind(b"hours:", _nothing, follows=True),
    # That paths are pinned, which keeps the paths (operations.collection.pins).
    RecordKind(b"pin:", _nothing, follows=False),
    # That a path is fetched from an upstream now (layers.fetch_lease).
    RecordKind(b"lease:", _nothing, follows=True),
    # How many bytes a named cache holds, as counted by one process (layers.holding.quota).
    RecordKind(b"usage:", _nothing, follows=False),
)


def kind_of(key: bytes) -> RecordKind | None:
    """The kind of the record with this key, or None for a kind that is not ours: such records keep nothing alive."""
    return next((kind for kind in KINDS if key.startswith(kind.prefix)), None)

"""Taking back what is condemned, inside the transaction of a commit (see docs/design/collection.md)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.content_index import ContentIndex
from tvix_store.backends.local.contents import Name, Written
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.records import Kind
from tvix_store.errors import CorruptError, UnavailableError

_log = logging.getLogger(__name__)


def take_back(index: ContentIndex, reader: PackReader, txn: Txn, names: Iterable[Name]) -> None:
    """Make condemned contents live again: chunks, directories, and blobs with their chunk lists and all chunks."""
    for kind, key in names:
        if kind is not Kind.CHUNK_LIST:
            index.take_back(txn, kind, key)
            continue
        segments = index.chunk_list(txn, key, condemned=True)
        if segments and holds_chunks(index, reader, txn, segments):
            for each in segments:
                index.take_back(txn, kind, each.key)


def holds_chunks(index: ContentIndex, reader: PackReader, txn: Txn, segments: Sequence[Written]) -> bool:
    """Whether all chunks are there that the segments of a chunk list name. Then condemned ones among them are live again."""
    condemned: list[bytes] = []
    for each in segments:
        try:
            chunks = {chunk for chunk, _ in parse_segment(reader.read_checked(each.place)).entries}
        except (CorruptError, UnavailableError) as error:
            _log.warning("a chunk list is not taken back: %s", error)
            return False
        for chunk in chunks:
            if index.place_in(txn, Kind.CHUNK, chunk) is None:
                if index.place_in(txn, Kind.CHUNK, chunk, condemned=True) is None:
                    return False
                condemned.append(chunk)
    for chunk in condemned:
        index.take_back(txn, Kind.CHUNK, chunk)
    return True

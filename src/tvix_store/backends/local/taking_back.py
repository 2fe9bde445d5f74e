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


def take_back(index: ContentIndex, reader: PackReader, txn: Txn, names: Iterable[Name]) -> list[bytes]:
    """Make condemned contents live again: chunks, directories, and blobs with their chunk lists and all chunks.

    The blobs whose lists are not live then: a part of it, or a chunk, is gone or cannot be read.
    """
    lacking: list[bytes] = []
    for kind, key in names:
        if kind is not Kind.CHUNK_LIST:
            index.take_back(txn, kind, key)
        elif not take_back_list(index, reader, txn, key):
            lacking.append(key)
    return lacking


def take_back_list(index: ContentIndex, reader: PackReader, txn: Txn, blob: bytes) -> bool:
    """Make a blob's chunk list live, with all chunks that it names; whether all of that is there.

    While a list is condemned, one part after the other, somebody may put a part anew.
    """
    live, condemned = index.chunk_list(txn, blob), index.chunk_list(txn, blob, condemned=True)
    if _holds_all(index, reader, txn, live):
        for each in condemned:  # of two, the live one stays
            index.drop_condemned(txn, each)
        return True
    both = {each.key: each for each in (*condemned, *live)}
    if not condemned or not _holds_all(index, reader, txn, [both[key] for key in sorted(both)]):
        return False
    for each in condemned:
        index.take_back(txn, each.kind, each.key)
    return True


def _holds_all(index: ContentIndex, reader: PackReader, txn: Txn, segments: Sequence[Written]) -> bool:
    """Whether these are all segments of a chunk list, and all its chunks are there. Condemned chunks are live again then."""
    condemned: list[bytes] = []
    end = size = 0
    for each in segments:
        try:
            segment = parse_segment(reader.read_checked(each.place))
        except (CorruptError, UnavailableError) as error:
            _log.warning("a chunk list is not taken back: %s", error)
            return False
        if segment.offset != end:
            return False
        end, size = segment.end, segment.blob_size
        for chunk in {chunk for chunk, _ in segment.entries}:
            if index.place_in(txn, Kind.CHUNK, chunk) is None:
                if index.place_in(txn, Kind.CHUNK, chunk, condemned=True) is None:
                    return False
                condemned.append(chunk)
    if not segments or end != size:
        return False
    for chunk in condemned:
        index.take_back(txn, Kind.CHUNK, chunk)
    return True

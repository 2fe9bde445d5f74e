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


def take_back(index: ContentIndex, reader: PackReader, txn: Txn, names: Iterable[Name]) -> bool:
    """Make condemned contents live again: chunks, directories, and blobs with their chunk lists and all chunks.

    False where one of them cannot be taken back. A chunk list that is damaged, or lacks a part, is forgotten then. One that the
    disk does not give stays among the condemned.
    """
    is_done = True
    for kind, key in names:
        if kind is not Kind.CHUNK_LIST:
            index.take_back(txn, kind, key)
        elif index.chunk_list(txn, key, condemned=True):
            try:
                is_whole = make_whole(index, reader, txn, key)
            except UnavailableError as error:
                _log.warning("a chunk list is not taken back: %s", error)
                is_done = False
                continue
            if not is_whole:
                index.drop_chunk_list(txn, key)
                is_done = False
    return is_done


def make_whole(index: ContentIndex, reader: PackReader, txn: Txn, blob: bytes) -> bool:
    """Whether the chunk list of a blob is there, with all chunks that it names. Then condemned parts of both are live again.

    Raises:
        UnavailableError: the disk does not give it.
    """
    live, condemned = index.chunk_list(txn, blob), index.chunk_list(txn, blob, condemned=True)
    merged = {each.key: each for each in (*condemned, *live)}
    try:
        wanted = _parts(index, reader, txn, live) if live else None
        if wanted is not None:  # the condemned list is another copy
            for each in condemned:
                index.drop_condemned(txn, each)
            condemned = []
        elif condemned:
            wanted = _parts(index, reader, txn, [merged[key] for key in sorted(merged)])
    except CorruptError as error:
        _log.warning("a chunk list is forgotten: %s", error)
        return False
    if wanted is None:
        return False
    for kind, key in (*wanted, *((Kind.CHUNK_LIST, each.key) for each in condemned)):
        index.take_back(txn, kind, key)
    return True


def _parts(index: ContentIndex, reader: PackReader, txn: Txn, segments: Sequence[Written]) -> list[Name] | None:
    """The condemned ones of the chunks that the segments of a list name; None where a segment or a chunk is not there.

    Raises:
        CorruptError, UnavailableError: a segment cannot be read.
    """
    condemned: list[Name] = []
    end = size = 0
    for each in segments:
        segment = parse_segment(reader.read_checked(each.place))
        if segment.offset != end:
            return None
        for chunk in {chunk for chunk, _ in segment.entries}:
            if index.place_in(txn, Kind.CHUNK, chunk) is None:
                if index.place_in(txn, Kind.CHUNK, chunk, condemned=True) is None:
                    return None
                condemned.append((Kind.CHUNK, chunk))
        end, size = segment.end, segment.blob_size
    return condemned if end == size else None

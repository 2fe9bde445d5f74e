"""Forgetting what was found damaged, so that it counts as missing, and is stored anew when it is put again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from blake3 import blake3

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.compression import unpack
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import FORGOTTEN, Index
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.errors import CorruptError, UnavailableError

_log = logging.getLogger(__name__)


def opened(digest: bytes, place: Place, stored: bytes) -> bytes | None:
    """The chunk or directory that is `stored` at `place`, decompressed; None where it does not match `digest`."""
    data = stored if place.stored == place.length else unpack(stored, place.length)
    return data if data is not None and blake3(data).digest() == digest else None


def forget(index: Index, reader: PackReader, suspects: Iterable[tuple[bytes, Place]]) -> None:
    """Take those chunks, directories and chunk lists (by their blobs) out of the index that lie at these places, and are damaged.

    With a chunk go the chunk lists that name it, or their blobs would count as whole, and with all of them what is known of NARs:
    a narinfo is given out on the strength of that, and which NARs hold the content nobody knows. Content that
    a failing disk does not give stays: it may come back.
    """
    damaged = [
        (kind, digest, place)
        for digest, place in set(suspects)
        if (kind := _kind(index, digest, place)) is not None and _is_damaged(reader, kind, digest, place)
    ]
    if not damaged:
        return
    blobs = _blobs_with(index, reader, [digest for kind, digest, _ in damaged if kind is Kind.CHUNK])
    with index.writing() as txn:
        for kind, digest, place in damaged:
            if kind is Kind.CHUNK_LIST:
                index.drop_chunk_list(txn, digest)
            elif not index.drop_content(txn, kind, digest, place):
                continue  # another process was faster
            elif kind is Kind.CHUNK:
                # In the same transaction as the row: nobody can have stored the chunk anew, and rely on these lists.
                for blob in blobs.get(digest, ()):
                    index.drop_chunk_list(txn, blob)
            # The error is the reader's to see; this tells that it has an end.
            _log.info(
                "b3:%s is damaged (pack %08x, offset %d); it counts as missing until it is put again",
                digest.hex(),
                place.pack,
                place.offset,
            )
        index.drop_nar_facts(txn)
        index.count(txn, FORGOTTEN, 1)


def torn_blobs(
    index: Index,
    reader: PackReader,
    txn: Txn,
    is_lost: Callable[[Place], bool] = lambda place: False,
    checked: Callable[[int], None] = lambda count: None,
    blobs: Iterable[bytes] | None = None,
) -> Iterator[list[Written]]:
    """The blobs that lack a chunk, or a part of their chunk list: what there is of each list. Reads all lists: 36 bytes a chunk.

    `blobs` are those that are looked at, instead of all.
    `is_lost` tells of places that can't be read for long: this process may still have open what was removed. `checked` hears how
    many parts of lists were looked at.
    """
    lists = (
        (list(rows) for _, rows in groupby(index.contents(txn, Kind.CHUNK_LIST), lambda each: each.key[:KEY_SIZE]))
        if blobs is None
        else (index.chunk_list(txn, blob) for blob in blobs)
    )
    for segments in filter(None, lists):
        checked(len(segments))
        if any(is_lost(each.place) for each in segments) or not _is_whole_list(index, reader, txn, segments):
            yield segments


def _is_whole_list(index: Index, reader: PackReader, txn: Txn, segments: list[Written]) -> bool:
    end = size = 0
    for each in segments:  # in their order
        try:
            segment = parse_segment(reader.read_checked(each.place))
        except (CorruptError, UnavailableError):  # where the disk does not give it, the blob is missing as well
            return False
        if segment.offset != end or not all(index.is_named(txn, Kind.CHUNK, chunk) for chunk, _ in segment.entries):
            return False
        end, size = segment.end, segment.blob_size
    return end == size


def _kind(index: Index, digest: bytes, place: Place) -> Kind | None:
    """What is named by this digest and lies there."""
    if place == index.chunk(digest):
        return Kind.CHUNK
    if place == index.directory(digest):
        return Kind.DIRECTORY
    return Kind.CHUNK_LIST if place in index.chunk_list_places(digest) else None


def _is_damaged(reader: PackReader, kind: Kind, digest: bytes, place: Place) -> bool:
    """Read once more: what is forgotten should be lost for certain."""
    try:
        stored = reader.read(place)
        if kind is not Kind.CHUNK_LIST:
            return opened(digest, place, stored) is None
        reader.read_checked(place)
    except CorruptError:  # also where the pack is missing, or too short
        return True
    except UnavailableError:
        return False
    return False


def _blobs_with(index: Index, reader: PackReader, chunks: Sequence[bytes]) -> dict[bytes, set[bytes]]:
    """The blobs whose chunk lists name these chunks. Reads all lists: 36 bytes a chunk."""
    found: dict[bytes, set[bytes]] = {}
    with index.reading() as txn:
        for blob, place in index.chunk_list_segments(txn):
            try:
                payload = reader.read_checked(place)
            except CorruptError:
                continue
            except UnavailableError:  # the disk may give it again, with a chunk in it that is missing then
                for chunk in chunks:
                    found.setdefault(chunk, set()).add(blob)
                continue
            for chunk in chunks:
                if chunk in payload:
                    found.setdefault(chunk, set()).add(blob)
    return found

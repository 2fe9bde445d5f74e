"""Forgetting damaged content. It counts as missing then, and the next put stores it anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from blake3 import blake3

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.compression import unpack
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind, forgotten
from tvix_store.backends.local.requests import Commit, Request, Result
from tvix_store.errors import CorruptError, UnavailableError

_log = logging.getLogger(__name__)


def opened(digest: bytes, place: Place, stored: bytes) -> bytes | None:
    """The chunk or directory that is `stored` at `place`, decompressed; None where it does not match `digest`."""
    data = stored if place.stored == place.length else unpack(stored, place.length)
    return data if data is not None and blake3(data).digest() == digest else None


class Forget(Request):
    """Takes damaged content out of the index for good: an entry of the pack says so.

    `suspects` are chunks, directories and chunk lists (by their blobs), and where they lie. With a chunk go the chunk lists that
    name it, or their blobs would count as whole. `torn` are blobs of which a chunk was missing: their lists go, if that is so. With
    all of them go the facts of NARs: narinfos are given out on the strength of these facts, and nobody knows which NARs hold the
    content. Content that a failing disk does not give stays: it may come back.
    """

    appends = True

    def __init__(self, suspects: Iterable[tuple[bytes, Place]] = (), torn: Iterable[bytes] = ()) -> None:
        super().__init__()
        self.suspects = set(suspects)
        self.torn = set(torn)
        self._damaged: list[tuple[Kind, bytes, Place]] = []
        self._blobs: dict[bytes, set[bytes]] = {}
        self._known: dict[int, int] = {}
        self._reader: PackReader | None = None

    @classmethod
    def all_of(cls, forgets: Iterable[Forget]) -> Forget:
        """One for all that several ask for."""
        some = list(forgets)
        return cls((suspect for each in some for suspect in each.suspects), (blob for each in some for blob in each.torn))

    def prepare(self, index: Index, reader: PackReader) -> bool:
        """Find what is to be forgotten, outside of a write transaction: that reads all chunk lists. Whether there is anything."""
        self._reader = reader
        self._damaged = [
            (kind, digest, place)
            for digest, place in self.suspects
            if (kind := _kind(index, digest, place)) is not None and _is_damaged(reader, kind, digest, place)
        ]
        with index.reading() as txn:
            self._known = index.committed_packs(txn)
            self._blobs = self._blobs_with_damage(reader, index.chunk_list_segments(txn))
        return bool(self._damaged or self.torn)

    def apply(self, commit: Commit) -> Result:
        index, txn, reader = commit.index, commit.txn, self._reader
        assert reader is not None
        # Lists that were committed since: another process may have stored a blob that names the chunk.
        newer = (
            (blob, place)
            for blob, place in index.chunk_list_segments(txn)
            if place.offset + place.stored > self._known.get(place.pack, 0)
        )
        blobs = self._blobs
        for chunk, more in self._blobs_with_damage(reader, newer).items():
            blobs.setdefault(chunk, set()).update(more)
        gone: list[Written] = []
        lists = {segments[0].key[:KEY_SIZE] for segments in torn_blobs(index, reader, txn, blobs=self.torn)}
        for kind, digest, place in self._damaged:
            if kind is Kind.CHUNK_LIST:
                lists.add(digest)
            elif not index.drop_content(txn, kind, digest, place):
                continue  # another process was faster
            else:
                gone.append(Written(kind, digest, 0, place))
                # In the same transaction as the row: nobody can have stored the chunk anew, and rely on these lists.
                lists |= blobs.get(digest, set())
            # The error is the reader's to see; this tells that it has an end.
            _log.info(
                "b3:%s is damaged (pack %08x, offset %d); it counts as missing until it is put again",
                digest.hex(),
                place.pack,
                place.offset,
            )
        for blob in lists:
            gone += index.chunk_list(txn, blob) + index.chunk_list(txn, blob, condemned=True)
            index.drop_chunk_list(txn, blob)
        if gone:
            index.drop_nar_facts(txn)
            index.renew_generation(txn)
            commit.entries.append(forgotten(b"".join(each.to_bytes() for each in gone)))
        return None

    def _blobs_with_damage(self, reader: PackReader, segments: Iterable[tuple[bytes, Place]]) -> dict[bytes, set[bytes]]:
        """The blobs whose chunk lists name damaged chunks. Reads these parts of lists: 36 bytes a chunk."""
        chunks = [digest for kind, digest, _ in self._damaged if kind is Kind.CHUNK]
        found: dict[bytes, set[bytes]] = {}
        for blob, place in segments if chunks else ():
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

"""ContentIndex: the tables that lead from contents to places in packs.

    chunks       digest                          → Place
    directories  digest                          → Place
    chunk_lists  blob digest + u64-BE offset     → u64 blob size, Place     one row per segment of a blob's chunk list

Each has a second table, `condemned_…`, for rows of content that no path needs. Such content is deleted a day later, unless somebody
finds it before (see docs/design/collection.md). Readers find it there; writers do not look, and store it anew. What a reader has
found is `wanted_back`: the next commit of this process moves its row back.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path
from zlib import crc32

from tvix_store.backends.local.chunk_lists import chunk_list_key, is_first
from tvix_store.backends.local.contents import Content, Name, Written
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index_damage import DamageMark
from tvix_store.backends.local.ledger import STORED_BYTES, UNIQUE_BYTES, Ledger
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.backends.local.rows import RESIDUE, Table

_LIVE = (b"chunks", b"directories", b"chunk_lists")
_CONDEMNED = (b"condemned_chunks", b"condemned_directories", b"condemned_chunk_lists")
_KINDS = (Kind.CHUNK, Kind.DIRECTORY, Kind.CHUNK_LIST)
_PAGE = 1000
_U64 = struct.Struct("<Q")
_PLACE_ROW = struct.Struct("<IQII4x")
_PLACE_HEAD = struct.Struct("<IQI")


class ContentIndex(Ledger):
    """The places of contents. `tables` are the names of further tables."""

    def __init__(self, file: Path, tables: Sequence[bytes], durability: Durability, damage: DamageMark) -> None:
        super().__init__(file, (*_LIVE, *_CONDEMNED, *tables), durability, damage)
        self.chunks, self.directories, self.chunk_lists = live = self.tables[: len(_LIVE)]
        condemned = self.tables[len(_LIVE) : len(_LIVE) + len(_CONDEMNED)]
        self._table_of = dict(zip(_KINDS, live, strict=True))
        self._condemned_of = dict(zip(_KINDS, condemned, strict=True))
        self.bytes_put = 0
        """Stored bytes of all contents that this process has named."""
        self.wanted_back: set[Name] = set()
        """Condemned contents that this process has found: chunks, directories, and the chunk lists of blobs."""
        self.finds = 0
        """Rises whenever something is found among the condemned."""

    def chunk(self, digest: bytes) -> Place | None:
        return self._place(Kind.CHUNK, digest)

    def directory(self, digest: bytes) -> Place | None:
        return self._place(Kind.DIRECTORY, digest)

    def is_blob(self, txn: Txn, digest: bytes) -> bool:
        """Whether a blob is there, live or condemned."""
        return self.is_named(txn, Kind.CHUNK, digest) or self.is_named(txn, Kind.CHUNK_LIST, chunk_list_key(digest, 0))

    def is_live_blob(self, digest: bytes) -> bool:
        """Whether a blob is there that is not condemned."""
        keys = {Kind.CHUNK: digest, Kind.CHUNK_LIST: chunk_list_key(digest, 0)}
        return any(self.live_place(kind, key) is not None for kind, key in keys.items())

    def unknown(self, contents: Sequence[Content]) -> list[Content]:
        """Those of the contents that are not in the index, or condemned."""
        with self.reading() as txn:
            return [content for content in contents if self._row(txn, self._table_of[content.kind], content.key) is None]

    def chunks_at(self, digests: Sequence[bytes]) -> list[Place | None]:
        """Where chunks lie, in the order of `digests`."""
        return [None if fields is None else Place(*fields) for fields in self.places_of_chunks(digests)]

    def places_of_chunks(self, digests: Sequence[bytes]) -> list[tuple[int, int, int, int] | None]:
        """As `chunks_at`, as the fields of a `Place`: to make one takes as long as to look it up."""
        with self.reading() as txn, txn.cursor(self.chunks.handle) as cursor:
            rows = cursor.getmulti(digests)
        seed, unpack = self.chunks.seed, _PLACE_ROW.unpack
        # `is_whole`, written out.
        fields = [unpack(row) if crc32(row, crc32(key, seed)) == RESIDUE else None for key, row in rows]
        if len(fields) == len(digests) and None not in fields:
            return fields
        for (key, _), place in zip(rows, fields, strict=True):
            if place is None:
                self._tell_of_row(self.chunks, key)
        found = dict(zip((key for key, _ in rows), fields, strict=True))
        return [found.get(digest) or self._fields_again(digest) for digest in digests]

    def chunk_list_segment(self, blob: bytes, offset: int) -> tuple[int, Place] | None:
        """The blob's size and the place of the segment of its chunk list that covers the byte at `offset`."""
        with self.reading() as txn:
            found = self._segment(txn, self.chunk_lists, blob, offset)
            if found is None:
                found = self._segment(txn, self._condemned_of[Kind.CHUNK_LIST], blob, offset)
                if found is not None:
                    self._want_back(Kind.CHUNK_LIST, blob)
        return found

    def put_content(self, txn: Txn, kind: Kind, key: bytes, place: Place, blob_size: int = 0) -> bool:
        """Name the place of a chunk, a directory or a segment of a chunk list; whether it was new."""
        self.bytes_put += place.stored
        return self._put(txn, self._table_of[kind], key, _row_of(kind, blob_size, place), overwrite=False)

    def place_in(self, txn: Txn, kind: Kind, key: bytes, *, condemned: bool = False) -> Place | None:
        """Where a content lies; of a chunk list, one segment. `condemned` looks among these alone."""
        row = self._row(txn, self._table(kind, condemned=condemned), key)
        return None if row is None else Place.from_bytes(row[_head(kind) :])

    def drop_content(self, txn: Txn, kind: Kind, key: bytes, place: Place) -> bool:
        """Forget a chunk, a directory, or a segment of a chunk list, if it is live and lies at `place`; whether it did."""
        if self.place_in(txn, kind, key) != place:
            return False
        txn.delete(key, db=self._table_of[kind].handle)
        self._count(txn, kind, place, -1)
        return True

    def move_content(self, txn: Txn, kind: Kind, key: bytes, place: Place, *, condemned: bool = False) -> None:
        """Name another place of a content that is there. The caller counts the bytes."""
        table = self._table(kind, condemned=condemned)
        row = self._row(txn, table, key)
        head = b"" if row is None else row[: _head(kind)]
        self._put(txn, table, key, head + place.to_bytes())

    def condemn(self, txn: Txn, content: Written) -> bool:
        """Move a row that is as `content` says to the condemned ones; whether it was."""
        kind, key, blob_size, place = content
        if not self.drop_content(txn, kind, key, place):
            return False
        self._put(txn, self._condemned_of[kind], key, _row_of(kind, blob_size, place))
        return True

    def take_back(self, txn: Txn, kind: Kind, key: bytes) -> None:
        """Move a condemned row back; of two, the live one stays. Nothing, where there is none."""
        table = self._condemned_of[kind]
        row = self._row(txn, table, key)
        if row is not None:
            content = _written(kind, key, row)
            txn.delete(key, db=table.handle)
            if self.put_content(txn, kind, key, content.place, content.blob_size):
                self._count(txn, kind, content.place, 1)

    def drop_condemned(self, txn: Txn, content: Written) -> None:
        """Forget one condemned content."""
        txn.delete(content.key, db=self._condemned_of[content.kind].handle)

    def take_all_back(self, txn: Txn) -> None:
        """Make all that is condemned live again."""
        for kind, table in self._condemned_of.items():
            while some := list(islice(self.contents(txn, kind, condemned=True), _PAGE)):
                for content in some:
                    self.take_back(txn, kind, content.key)
            txn.drop(table.handle, delete=False)

    def drop_all_condemned(self, txn: Txn) -> None:
        """Forget all that is condemned."""
        for table in self._condemned_of.values():
            txn.drop(table.handle, delete=False)

    def contents(self, txn: Txn, kind: Kind, *, condemned: bool = False) -> Iterator[Written]:
        """All chunks, directories, or segments of chunk lists, in the order of their keys; `condemned` or live ones."""
        return (_written(kind, key, row) for key, row in self._whole_rows(txn, self._table(kind, condemned=condemned)))

    def all_contents(self, kind: Kind, *, condemned: bool = False, without: Container[bytes] = frozenset()) -> Iterator[Written]:
        """As `contents`, in a read transaction for each thousand: rows may be put and moved meanwhile.

        Contents whose keys begin with a digest in `without` are passed over.
        """
        return (
            _written(kind, key, row) for key, row in self._rows_in_pages(kind, condemned=condemned) if key[:KEY_SIZE] not in without
        )

    def all_keys(self, kind: Kind, *, condemned: bool = False) -> Iterator[bytes]:
        """The keys of all contents, read as by `all_contents`."""
        return (key for key, _ in self._rows_in_pages(kind, condemned=condemned))

    def _rows_in_pages(self, kind: Kind, *, condemned: bool) -> Iterator[tuple[bytes, bytes]]:
        table = self._table(kind, condemned=condemned)
        last: bytes | None = b""
        while last is not None:
            with self.reading() as txn:
                page = self.rows_behind(txn, table, last, _PAGE)
            last = page[-1][0] if len(page) == _PAGE else None
            for key, row in page:
                if self._is_whole(table, key, row):
                    yield key, row

    def places_behind(self, kind: Kind, key: bytes, limit: int) -> tuple[list[tuple[bytes, int, int, int]], bytes | None]:
        """The next `limit` live rows behind a key, but those that fail their checks: key, pack, offset and stored bytes of each.

        Also the last key; None where no more rows follow.

        Raises:
            CorruptError: the rows are not in order.
        """
        table, head = self._table_of[kind], _head(kind)
        with self.reading() as txn:
            rows = self.rows_behind(txn, table, key, limit)
        unpack = _PLACE_HEAD.unpack_from  # making Places would take three times as long
        places = [(name, *unpack(row, head)) for name, row in rows if self._is_whole(table, name, row)]
        return places, rows[-1][0] if len(rows) == limit else None

    def live_place(self, kind: Kind, key: bytes) -> Place | None:
        """Where a chunk, a directory, or a segment of a chunk list lies now; None also for one that is condemned."""
        row = self._get(self._table_of[kind], key)
        return None if row is None else Place.from_bytes(row[_head(kind) :])

    def touch(self, names: Sequence[Name]) -> None:
        """Look contents up, so that their pages are in memory."""
        with self.reading() as txn:
            for kind, key in names:
                txn.get(key, db=self._table_of[kind].handle)

    def is_at(self, txn: Txn, content: Written) -> bool:
        """Whether a content, live or condemned, lies where `content` says."""
        kind, key, _, place = content
        return any(self.place_in(txn, kind, key, condemned=condemned) == place for condemned in (False, True))

    def is_named(self, txn: Txn, kind: Kind, key: bytes) -> bool:
        """Whether there is a chunk, directory, or segment of a chunk list, live or condemned."""
        return any(self._row(txn, tables[kind], key) is not None for tables in (self._table_of, self._condemned_of))

    def chunk_list_segments(self, txn: Txn) -> Iterator[tuple[bytes, Place]]:
        """All segments of all chunk lists, live or condemned: the digest of the blob, and the place."""
        for condemned in (False, True):
            for segment in self.contents(txn, Kind.CHUNK_LIST, condemned=condemned):
                yield segment.key[:KEY_SIZE], segment.place

    def chunk_list(self, txn: Txn, blob: bytes, *, condemned: bool = False) -> list[Written]:
        """All segments of a blob's chunk list, in order."""
        table = self._table(Kind.CHUNK_LIST, condemned=condemned)
        rows = self._beginning_with(txn, table, blob, blob)
        return [_written(Kind.CHUNK_LIST, key, row) for key, row in rows if row is not None]

    def chunk_list_places(self, blob: bytes) -> list[Place]:
        """The places of all segments of a blob's chunk list."""
        with self.reading() as txn:
            return [segment.place for segment in self.chunk_list(txn, blob)]

    def drop_chunk_list(self, txn: Txn, blob: bytes) -> None:
        """Forget all segments of a blob's chunk list, live or condemned."""
        for table in (self.chunk_lists, self._condemned_of[Kind.CHUNK_LIST]):
            with txn.cursor(table.handle) as cursor:
                found = cursor.set_range(blob)
                while found and cursor.key().startswith(blob):
                    found = cursor.delete()

    def chunked_blobs(self, txn: Txn) -> int:
        """How many blobs are cut into more than one chunk: the chunk list segments that begin one."""
        return sum(is_first(key) for key in txn.cursor(self.chunk_lists.handle).iternext(values=False))

    def _table(self, kind: Kind, *, condemned: bool) -> Table:
        return (self._condemned_of if condemned else self._table_of)[kind]

    def _place(self, kind: Kind, key: bytes) -> Place | None:
        row = self._get(self._table_of[kind], key)
        return self._place_again(kind, key) if row is None else Place.from_bytes(row)

    def _place_again(self, kind: Kind, key: bytes) -> Place | None:
        """Where a chunk or directory lies that was not live a moment ago: one transaction looks at both tables."""
        with self.reading() as txn:
            place = self.place_in(txn, kind, key)
            if place is None:
                place = self.place_in(txn, kind, key, condemned=True)
                if place is not None:
                    self._want_back(kind, key)
        return place

    def _want_back(self, kind: Kind, key: bytes) -> None:
        self.wanted_back.add((kind, key))
        self.finds += 1  # of two threads at once, one may not count: it has risen all the same

    def _fields_again(self, digest: bytes) -> tuple[int, int, int, int] | None:
        place = self._place_again(Kind.CHUNK, digest)
        return None if place is None else (place.pack, place.offset, place.stored, place.length)

    def _segment(self, txn: Txn, table: Table, blob: bytes, offset: int) -> tuple[int, Place] | None:
        wanted = blob + offset.to_bytes(8, "big")
        with txn.cursor(table.handle) as cursor:
            found = cursor.set_range(wanted)
            if not (found and cursor.key() == wanted):
                found = cursor.prev() if found else cursor.last()
            if not found or not cursor.key().startswith(blob):
                return None
            key, row = cursor.item()
        if not self._is_whole(table, key, row):
            return None
        return _U64.unpack_from(row)[0], Place.from_bytes(row[_U64.size :])

    def _count(self, txn: Txn, kind: Kind, place: Place, times: int) -> None:
        """Count the bytes of a chunk that is live from now on, or (-1) is not any more."""
        if kind is Kind.CHUNK:
            self.count(txn, UNIQUE_BYTES, times * place.length)
            self.count(txn, STORED_BYTES, times * place.stored)

    def _beginning_with(self, txn: Txn, table: Table, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """The rows whose keys begin with `prefix`, from `start` on; None for a row that fails its check."""
        with txn.cursor(table.handle) as cursor:
            found = cursor.set_range(start)
            while found and cursor.key().startswith(prefix):
                key, row = cursor.item()
                yield key, row if self._is_whole(table, key, row) else None
                found = cursor.next()


def _row_of(kind: Kind, blob_size: int, place: Place) -> bytes:
    return _U64.pack(blob_size) + place.to_bytes() if kind is Kind.CHUNK_LIST else place.to_bytes()


def _head(kind: Kind) -> int:
    """Bytes of a row before the place."""
    return _U64.size if kind is Kind.CHUNK_LIST else 0


def _written(kind: Kind, key: bytes, row: bytes) -> Written:
    head = _head(kind)
    return Written(kind, key, _U64.unpack_from(row)[0] if head else 0, Place.from_bytes(row[head:]))

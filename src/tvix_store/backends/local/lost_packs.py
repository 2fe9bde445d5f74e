"""Packs that are gone, or shorter than the index says. Their content counts as missing, so a put stores it anew.

The index knows how many bytes of each pack are committed. A pack that has fewer is lost. All that the index names there is
forgotten, with the chunk lists of blobs that lack a chunk now, and what is known of NARs. What else may have stood in the lost
packs is appended to another one in the same transaction: all path infos and records, and how many bytes of each pack are accepted.
So it is still there when the index is made anew.

A file `<store>/XXXXXXXX.lost`, or `XXXXXXXX-2.lost` and so on, keeps what was forgotten, to name it again if the packs come back.
While it is there, health says so, and nobody writes to what is left of the packs.

    u32 number of packs, u32 pack number and u64 committed size of each, then rows as of `contents.Written`
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import BinaryIO, NamedTuple

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.contents import ROW_SIZE, Written, read_rows
from tvix_store.backends.local.damage import torn_blobs
from tvix_store.backends.local.disk import disk_errors, new_file, unfinished_name
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import HIGHEST_PACK, SEQUENCE, STORED_BYTES, UNIQUE_BYTES
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.backends.local.packs import PREFIX_SIZE, Place
from tvix_store.backends.local.records import KEY_SIZE, PACK_SIZE, Kind, accepted, keyed_records, path_info_record
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.services.batches import batched
from tvix_store.services.record_kinds import PLAN

_LOOK_EVERY = 0.5
"""Seconds between two looks at the sizes of packs, while somebody asks. Where looking takes long, they are longer."""
_LOOKING = 0.01
"""Share of the time that looking may take."""
_ROWS_A_CHECK = 10_000
"""Contents of which one call of `check` looks whether they were put again: 30 ms."""
_APPENDED_AT_ONCE = 1_000
"""Path infos and records that are appended with one call: 1 MB."""
_COUNT = struct.Struct("<I")
_log = logging.getLogger(__name__)


class _Loss(NamedTuple):
    """A file of what was forgotten: the committed sizes of the packs, and where its rows begin."""

    path: Path
    packs: dict[int, int]
    rows_at: int


class LostPacks:
    """Notices that packs are lost, forgets what they held, and takes it back. Its methods may be called from any thread.

    With `catch_up`, only this process forgets it: its index is a copy of its own, to which that adds what is new in the packs.
    """

    def __init__(
        self, index: Index, reader: PackReader, directory: Path, durability: Durability, catch_up: Callable[[], None] | None = None
    ) -> None:
        self._catch_up = catch_up
        self._keeps_notes = catch_up is None
        self._durability = durability
        self._index = index
        self._reader = reader
        self._directory = directory
        self._packs = str(directory / "packs")
        self.changed = 0
        """When the directory of the packs had changed last, as of the last look that saw no loss."""
        self._look_at = 0.0
        self._put_again: dict[Path, int] = {}
        """How many bytes of each file are of contents that are there again."""

    def sees_loss(self) -> bool:
        """Whether the index names what lies in lost packs.

        A pack that is removed is seen at once, since that changes their directory: 2 µs. One that gets shorter is seen soon.
        """
        try:
            changed = os.stat(self._packs).st_mtime_ns
        except OSError:
            changed = -1
        begun = monotonic()
        if changed == self.changed and begun < self._look_at:
            return False
        if self._lost(self._committed()):
            return True
        if changed != self.changed:
            self._reader.close_removed()
        now = monotonic()
        self._look_at = now + max(_LOOK_EVERY, (now - begun) / _LOOKING)
        self.changed = changed
        return False

    def suspect(self) -> None:
        """Something could not be read: let the next `sees_loss` look at all packs."""
        self._look_at = 0.0

    def forget(self, writer: PackWriter) -> None:
        """Take out of the index what lies in lost packs. `writer` has a pack with nothing in it that the index does not name.

        Raises:
            StoreError: that cannot be written; the index is as it was.
        """
        if not self._lost(self._committed()):
            return
        if self._catch_up is not None:
            self._catch_up()
        try:
            with self._index.writing() as txn, disk_errors(self._directory):
                lost = self._lost(self._index.committed_packs(txn))
                if not lost:  # another process was faster
                    return
                with self._note(f"{min(lost):08x}") if self._keeps_notes else TemporaryFile() as file:
                    forgotten = self._forget(txn, lost, file)
                    if self._keeps_notes:
                        self._say_anew(txn, writer)
        except BaseException:
            writer.rewind()
            raise
        writer.keep()
        names = ", ".join(f"{number:08x}.pack" for number in sorted(lost)[:10])
        _log.error(
            "%s: %d packs are missing or cut short (%s): %d contents count as missing until they are put again",
            self._directory,
            len(lost),
            names,
            forgotten,
        )

    def take_back(self) -> None:
        """Name again what lies in packs that were lost and are whole again, unless it was put again meanwhile."""
        for loss in self._losses():
            if any(self._size(number) < size for number, size in loss.packs.items()):
                continue
            with self._index.writing() as txn:
                for each in _rows_of(loss):
                    if self._index.put_content(txn, each.kind, each.key, each.place, each.blob_size) and each.kind is Kind.CHUNK:
                        self._index.count(txn, UNIQUE_BYTES, each.place.length)
                        self._index.count(txn, STORED_BYTES, each.place.stored)
                for number, size in loss.packs.items():
                    # What was lost twice, in parts, comes back in parts too.
                    self._index.put_pack_sizes(txn, number, max(size, self._index.pack_sizes(txn, number)[0]), 0)
                for segments in list(torn_blobs(self._index, self._reader, txn)):  # by another loss
                    self._index.drop_chunk_list(txn, segments[0].key[:KEY_SIZE])
            loss.path.unlink(missing_ok=True)
            _log.warning("%s: packs that were missing are there again, and what they hold", self._directory)

    def check(self) -> None:
        """Raise UnavailableError as long as something that was lost was not put again."""
        for loss in self._losses():
            if not self._is_put_again(loss):
                names = ", ".join(f"{number:08x}.pack" for number in sorted(loss.packs)[:10])
                raise UnavailableError(
                    f"in {self._directory}, packs are missing or cut short ({names}); put again what they held, or bring them back "
                    f"and open the store again, or remove {loss.path.name} to do without"
                )
            with suppress(OSError):
                loss.path.unlink()

    def highest_number(self) -> int:
        """The highest number of a pack that the index names, or that was lost: numbers are not used twice."""
        with self._index.reading() as txn:
            highest = self._index.counter(txn, HIGHEST_PACK)
        return max({highest} | {number for loss in self._losses() for number in loss.packs})

    def may_come_back(self, number: int) -> bool:
        """Whether a pack was lost, and nobody may write to what is left of it."""
        return any(number in loss.packs for loss in self._losses())

    def _committed(self) -> dict[int, int]:
        with self._index.reading() as txn:
            return self._index.committed_packs(txn)

    def _lost(self, committed: dict[int, int]) -> dict[int, int]:
        """The packs that are lost, and what is left of each (bytes)."""
        # `committed` was read before the sizes: all of that had been appended.
        sizes = {number: self._size(number) for number in committed}
        return {number: size for number, size in sizes.items() if size < committed[number]}

    def _size(self, number: int) -> int:
        with disk_errors(self._directory):
            try:
                return os.stat(f"{self._packs}/{number:08x}.pack").st_size
            except FileNotFoundError:
                return 0

    def _forget(self, txn: Txn, lost: dict[int, int], file: BinaryIO) -> int:
        """Forget what lies in lost packs, and write it to a file; how many contents it is."""
        index = self._index

        def is_lost(place: Place) -> bool:
            return place.pack in lost and place.offset + place.stored > lost[place.pack]

        index.take_all_back(txn)  # some of it may be needed; the next collection condemns the rest anew
        committed = index.committed_packs(txn)
        file.write(_COUNT.pack(len(lost)))
        file.writelines(PACK_SIZE.pack(number, committed[number]) for number in lost)
        rows_at = file.tell()
        plans = self._plan_contents(txn)
        lost_plans: list[Written] = []
        for kind in (Kind.CHUNK, Kind.DIRECTORY):
            for each in index.contents(txn, kind):
                if is_lost(each.place) and each.key in plans:
                    lost_plans.append(each)
                elif is_lost(each.place):
                    file.write(each.to_bytes())
        dropped = 0
        for each in chain(_rows(file, rows_at), lost_plans):
            dropped += index.drop_content(txn, each.kind, each.key, each.place)
        file.seek(0, os.SEEK_END)
        torn = list(torn_blobs(index, self._reader, txn, is_lost))
        for segments in torn:
            blob = segments[0].key[:KEY_SIZE]
            if blob not in plans:
                file.writelines(each.to_bytes() for each in segments)
            index.drop_chunk_list(txn, blob)
        for number, size in lost.items():
            if size < PREFIX_SIZE:
                index.drop_pack(txn, number)
            else:  # what is left may be lost as well
                self._reader.sync(number)
                index.put_pack_sizes(txn, number, size, size)
        index.drop_nar_facts(txn)
        index.renew_generation(txn)
        return dropped + len(torn)

    def _say_anew(self, txn: Txn, writer: PackWriter) -> None:
        """Append, and sync, all that the index knows and that may have stood in no other pack than the lost ones."""
        index = self._index
        entries = chain(
            (accepted(index.count(txn, SEQUENCE, 1), index.committed_packs(txn)),),
            (path_info_record(*row) for row in index.path_info_rows(txn)),
            (keyed_records(number, {key: value}, durable=False) for key, number, value in index.record_rows(txn)),
        )
        writer.sync()  # what lies before a path info was on the disk before
        for some in batched(entries, _APPENDED_AT_ONCE):
            writer.append(some)
        writer.sync()
        index.put_pack_sizes(txn, writer.number, writer.size, writer.size)

    @contextmanager
    def _note(self, name: str) -> Iterator[BinaryIO]:
        """A file for what is forgotten, which is there when all of it is written."""
        path = self._unused(name)
        unfinished = unfinished_name(path)
        with os.fdopen(new_file(unfinished), "w+b") as file:
            try:
                yield file
                file.flush()
                self._durability.sync_file(file.fileno())
            except BaseException:
                unfinished.unlink()
                raise
        unfinished.rename(path)
        self._durability.sync_names(self._directory)

    def _plan_contents(self, txn: Txn) -> set[bytes]:
        """The blobs and chunks of plans of NARs, as far as they can be read: nobody puts these again, they are made anew."""
        found = set(self._index.record_values(txn, PLAN.prefix))
        for blob in tuple(found):
            for place in self._index.chunk_list_places(blob):
                with suppress(CorruptError):
                    found.update(chunk for chunk, _ in parse_segment(self._reader.read_checked(place)).entries)
        return found

    def _unused(self, name: str) -> Path:
        """A file for a loss. A pack may be lost twice: the rest of a pack that was cut, or entries that its writer named
        meanwhile."""
        path, number = self._directory / f"{name}.lost", 1
        while path.exists():
            number += 1
            path = path.with_name(f"{name}-{number}.lost")
        return path

    def _losses(self) -> list[_Loss]:
        """The files of what was forgotten and is not there again."""
        names = sorted(name for name in os.listdir(self._directory) if name.endswith(".lost"))
        return [loss for name in names if (loss := _loss(self._directory / name)) is not None]

    def _is_put_again(self, loss: _Loss) -> bool:
        at = self._put_again.setdefault(loss.path, loss.rows_at)
        with suppress(FileNotFoundError), loss.path.open("rb") as file, self._index.reading() as txn:
            file.seek(at)
            for each in _read_rows(file):
                if not self._index.is_named(txn, each.kind, each.key):
                    return False
                self._put_again[loss.path] += ROW_SIZE
            return not file.read(1)
        return True


def _loss(path: Path) -> _Loss | None:
    """None where there is no such file any more, or what it begins with is damaged."""
    try:
        with path.open("rb") as file:
            [packs] = _COUNT.unpack(file.read(_COUNT.size))
            size = min(packs * PACK_SIZE.size, os.fstat(file.fileno()).st_size)
            return _Loss(path, dict(PACK_SIZE.iter_unpack(file.read(size))), file.tell())
    except (OSError, struct.error):
        return None


def _rows_of(loss: _Loss) -> Iterator[Written]:
    with loss.path.open("rb") as file:
        yield from _rows(file, loss.rows_at)


def _rows(file: BinaryIO, at: int) -> Iterator[Written]:
    file.seek(at)
    while rows := _read_rows(file):
        yield from rows


def _read_rows(file: BinaryIO) -> list[Written]:
    """The next rows.

    Raises:
        CorruptError: the file is damaged.
    """
    try:
        return read_rows(file.read(_ROWS_A_CHECK * ROW_SIZE))
    except (struct.error, ValueError):
        raise CorruptError(f"{file.name} is damaged; remove it to do without what it lists") from None

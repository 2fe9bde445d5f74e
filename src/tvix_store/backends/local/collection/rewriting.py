"""Rewriting: packs much of which is dead are written anew, and removed. That gives space back.

A pack is never changed. What counts of it is copied into another pack, and moved in the index. Then the index says that the pack is
over. When a checkpoint on the disk says so too, the file is removed. Before that, a power cut may lead back to an index that names
it. Readers that have found a place in it look it up once more.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

from tvix_store.backends.local.collection.pack_contents import PackContents
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.damage import opened
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.file_lock import take
from tvix_store.backends.local.packs import Place, pack_numbers, pack_path
from tvix_store.backends.local.records import CONTENTS, HEADER_SIZE, KEY_SIZE, Kind, NewRecord, accepted
from tvix_store.backends.local.requests import Commit, LeavePack, NamePack, Request, Result
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.services.batches import filling

_WASTE = 0.1
"""Share of a pack that is dead, from which it is rewritten."""
_LEAST_WASTE = 64 << 10
"""Bytes that are dead at least. Each rewriting leaves a few hundred itself."""
_COPIED = 8 << 20
_COPIED_AT_ONCE = 2000
"""Bytes, and entries, that are copied before the index names their new places."""
_REST = 1.0
"""How many times as long as copying took, it rests: at most half of the disk's time is its."""
_SAID_AT_ONCE = 1000
"""Path infos and records that one transaction says again."""
_TRIES = 3
"""How often a pack is gone through. What is damaged is forgotten meanwhile."""
_log = logging.getLogger(__name__)


class Rewriting:
    """Rewrites packs of a store. The caller sees to it that it is the only one, and runs in a thread that may wait."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine = engine
        self._watch = watch
        self._index = engine.index
        self._packs = engine.directory / "packs"
        self.held = 0
        """Bytes that are dead in packs that others write to, as far as contents tell."""

    def run(self) -> int:
        """Rewrite all packs that are worth it, and that nobody writes to; how many bytes that has given back.

        None, while the index is damaged, or packs are lost: the packs hold what both are mended from.

        Raises:
            CorruptError: the index turns out to be damaged.
            StoreError: the store cannot be read or written. What was done stays, and the next run goes on.
            StoppedError: nobody waits for it any more.
        """
        try:
            self._engine.check()
        except UnavailableError as error:
            _log.warning("no pack is rewritten: %s", error)
            return 0
        self._do(LeavePack())
        with ExitStack() as locked, disk_errors(self._packs):
            freed = self._remove_over()
            live = self._live_bytes()
            found = self._worth_it(live)
            if found:
                self._index.see_that_all_are_found(self._index.path_infos, self._index.records)
            # Those that a writer might take over are locked before the first is copied: what is copied goes to none of them.
            unfinished = {number for number, size in found if size < self._engine.settings.pack_size}
            ours = {number for number in unfinished if _lock(locked, pack_path(self._packs, number))}
            for done, (number, size) in enumerate(found):
                self._watch.tell("rewritten", done, len(found))
                with ExitStack() as stack:
                    if number in ours or (number not in unfinished and _lock(stack, pack_path(self._packs, number))):
                        freed += self._rewrite(number, live.get(number, 0))
                    else:
                        self.held += size - live.get(number, 0)
        return freed

    def _worth_it(self, live: Mapping[int, int]) -> list[tuple[int, int]]:
        """The packs to rewrite, and their sizes; those with the least to copy first: they make room for the others."""
        with self._index.reading() as txn:
            committed = self._index.committed_packs(txn)
        found = [(number, size) for number, size in committed.items() if _is_worth_it(size, live.get(number, 0))]
        return sorted(found, key=lambda each: live.get(each[0], 0))

    def _live_bytes(self) -> Mapping[int, int]:
        """The bytes of each pack that contents take which the index names; never less."""
        found: dict[int, int] = {}
        for each in self._named():
            found[each.place.pack] = found.get(each.place.pack, 0) + each.place.stored + HEADER_SIZE
        return found

    def _named(self) -> Iterator[Written]:
        """All contents that the index names; some twice, since the condemned come first: what is taken back meanwhile comes too."""
        for kind in CONTENTS:
            for condemned in (True, False):
                for each in self._index.all_contents(kind, condemned=condemned):
                    self._watch.tell("", 0, 0)
                    yield each

    def _rewrite(self, number: int, live: int) -> int:
        """Rewrite a pack that is locked, and remove it; how many bytes that has given back.

        0 where it is not worth it, or not possible. The index names `live` bytes of contents in it, at most.
        """
        with self._index.reading() as txn:  # its last writer may have named more of it before it was locked
            size = self._index.pack_sizes(txn, number)[0]
        if self._engine.lost_packs.may_come_back(number):
            return 0
        copied = 0
        for _ in range(_TRIES):
            try:
                contents = PackContents.of(self._index, self._packs, number, size)
            except CorruptError as error:
                _log.warning("not rewritten: %s", error)
                return 0
            if contents.named < live:
                contents.add(each for each in self._named() if each.place.pack == number)
            if not copied and not _is_worth_it(size, contents.size):
                return 0
            groups = filling(contents.contents, lambda each: each.place.stored, size=_COPIED, count=_COPIED_AT_ONCE)
            copied += sum(map(self._copy, groups))
            copied += sum(self._say_again(part) for part in contents.journal_parts(_SAID_AT_ONCE))
            end = EndPack(number, size, contents)
            self._do(end)
            if end.is_over:
                self._engine.checkpoint()
                file_size = os.stat(pack_path(self._packs, number)).st_size
                self._remove(number)
                return file_size - copied
        _log.warning("pack %08x is not rewritten: some of it can't be read", number)
        return 0

    def _say_again(self, part: PackContents) -> int:
        """Say in another pack what path infos and records are now; the bytes of that."""
        say = SayAgain(part)
        self._do(say)
        return say.said

    def _copy(self, contents: Sequence[Written]) -> int:
        """Copy contents, and let the index name their new places; their bytes."""
        begun = monotonic()
        sound: list[tuple[Written, NewRecord]] = []
        for each in contents:
            record = self._read(each)
            if record is None:
                self._engine.forget_damaged(each.key[:KEY_SIZE], each.place)
            else:
                sound.append((each, record))
        writer = self._engine.spare_packs.take()
        try:
            if writer.is_full:
                writer.next_pack()
                self._do(NamePack(writer.number, writer.size))
            places = writer.append([record for _, record in sound])
            moves = [(each, place) for (each, _), place in zip(sound, places, strict=True)]
            self._do(MoveContents(moves, writer.number, writer.size))
            writer.keep()
        finally:
            self._engine.spare_packs.give_back(writer)
        self._watch.rest(_REST * (monotonic() - begun))
        return sum(HEADER_SIZE + each.place.stored for each, _ in sound)

    def _read(self, content: Written) -> NewRecord | None:
        """A content as it is to be appended, checked; None where it is damaged."""
        kind, key, _, place = content
        reader = self._engine.reader
        try:
            stored = reader.read_checked(place) if kind is Kind.CHUNK_LIST else reader.read(place)
        except CorruptError:
            return None
        if kind is not Kind.CHUNK_LIST and opened(key, place, stored) is None:
            return None
        return NewRecord(kind, key[:KEY_SIZE], stored, place.length)

    def _remove_over(self) -> int:
        """Remove packs that are over, where that was not done before the process ended; how many bytes."""
        freed = 0
        with self._index.reading() as txn:
            over = [number for number, size in self._index.committed_packs(txn).items() if size == 0]
        if over:
            self._engine.checkpoint()
        there = set(pack_numbers(self._packs))
        for number in over:
            freed += os.stat(pack_path(self._packs, number)).st_size if number in there else 0
            self._remove(number)
        return freed

    def _remove(self, number: int) -> None:
        pack_path(self._packs, number).unlink(missing_ok=True)
        self._engine.sync_names(self._packs)
        self._do(DropPack(number))

    def _do(self, request: Request) -> None:
        self._engine.committer.submit(request).result()


class MoveContents(Request):
    """Contents that lie elsewhere from now on, if they lie where they were read. They were copied into a pack of `size` bytes."""

    def __init__(self, moves: Sequence[tuple[Written, Place]], pack: int, size: int) -> None:
        super().__init__()
        self._moves = moves
        self._pack = pack
        self._size = size

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        for (kind, key, _, old), new in self._moves:
            for condemned in (False, True):
                if index.place_in(txn, kind, key, condemned=condemned) == old:
                    index.move_content(txn, kind, key, new, condemned=condemned)
        commit.name_pack(self._pack, self._size)
        return None


class SayAgain(Request):
    """What path infos and records are now is said once more, in another pack. `said`: how many bytes that takes."""

    is_durable = True
    appends = True

    def __init__(self, part: PackContents) -> None:
        super().__init__()
        self._part = part
        self.said = 0

    def apply(self, commit: Commit) -> Result:
        entries = list(self._part.journal(commit.index, commit.txn))
        if commit.index.is_damaged:
            return CorruptError("no pack is rewritten: the index is damaged; it is made anew when the store is opened again")
        commit.entries += entries
        self.said = sum(HEADER_SIZE + len(each.payload) for each in entries)
        return None


class EndPack(Request):
    """A pack of `size` bytes is over, if the index names nothing any more of the `contents` that were found in it.

    is_over: Whether it is so, when this is done.
    """

    is_durable = True
    appends = True

    def __init__(self, number: int, size: int, contents: PackContents) -> None:
        super().__init__()
        self._number = number
        self._size = size
        self._contents = contents
        self.is_over = False

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        if any(index.is_at(txn, each) for each in self._contents.contents):
            return None
        if index.is_damaged or index.pack_sizes(txn, self._number)[0] != self._size:
            return None
        sizes = {number: size for number, size in index.committed_packs(txn).items() if number != self._number}
        commit.entries.append(accepted(commit.sequence(), sizes))
        index.put_pack_sizes(txn, self._number, 0, 0)
        self.is_over = True
        return None


class DropPack(Request):
    """A pack that is over is removed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def apply(self, commit: Commit) -> Result:
        if commit.index.pack_sizes(commit.txn, self._number)[0] == 0:
            commit.index.drop_pack(commit.txn, self._number)
        return None


def _is_worth_it(size: int, live: int) -> bool:
    return size - live >= max(_WASTE * size, _LEAST_WASTE)


def _lock(stack: ExitStack, path: Path) -> bool:
    """Lock a pack as its writer would, until the stack is closed; whether nobody else has it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    stack.callback(os.close, fd)
    return take(fd, fcntl.LOCK_EX)

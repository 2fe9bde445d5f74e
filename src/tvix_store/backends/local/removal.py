"""LocalRemoval: path infos are removed from a local store while others put and use paths.

What stays, and in which order the others go, is found out beside everybody's work. A path goes before those that it refers to. So a
transaction looks only at the paths that it is to remove, and at the paths that were put since. A path that is used by now stays,
with all paths that it refers to. A put that comes later looks in its own transaction for the paths that it requires.

A removal stands in the index first, and in the journal when that is committed. So an entry that says "removed" is never one that
was given up, and of two entries with the same sequence number it is the true one. If the process dies in between, the path may
come back with an index that is made anew. Nobody was told then that it is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import SEQUENCE
from tvix_store.backends.local.records import path_info_record
from tvix_store.backends.local.requests import Commit, Request, Result
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.removal import read_hour, used_key

_PAGE = 2000
"""Rows that are looked at in one go: some 40 ms in a thread."""
_AT_ONCE = 5000
"""Path infos that one transaction removes: some 0.3 s. Others' puts wait for it."""

_References = Mapping[bytes, Sequence[bytes]]
"""The candidates, each with those that it refers to, by output hashes: some 250 bytes of memory each."""


class LocalRemoval:
    """The Removal of a local store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def remove(self, output_hashes: Collection[bytes], *, unused_since: int) -> set[bytes]:
        removed: set[bytes] = set()
        staying: set[bytes] = set()
        if output_hashes:
            seen, references = await self._candidates(output_hashes)
            order = await self._engine.in_thread(_referrers_first, references)
            for at in range(0, len(order), _AT_ONCE):
                request = RemovePathInfos(order[at : at + _AT_ONCE], references, staying, seen, unused_since)
                await asyncio.wrap_future(self._engine.committer.submit(request))
                if request.removed:
                    await asyncio.wrap_future(self._engine.committer.submit(SayRemoved(request.removed)))
                    removed |= request.removed.keys()
        return removed

    async def _candidates(self, wanted: Collection[bytes]) -> tuple[int, _References]:
        """A sequence number, and of the wanted paths those to which only such paths referred then."""
        index = self._engine.index
        _check(index)
        with index.reading() as txn:
            seen = index.counter(txn, SEQUENCE)
        own = {each: each for each in wanted}  # so that there is one object for each hash
        references: dict[bytes, Sequence[bytes]] = {}
        needed: set[bytes] = set()
        last: bytes | None = b""
        while last is not None:
            last = await self._engine.in_thread(_look_at_page, index, last, own, references, needed)
        _check(index)
        staying = _closure(references, needed)
        return seen, {each: to for each, to in references.items() if each not in staying}


class RemovePathInfos(Request):
    """Path infos are removed from the index, but those in `staying`, which grows by what turns out to be used.

    seen: The sequence number from which on others may have put path infos that refer to them.
    removed: The sequence numbers of the removals by output hash, when it is done.
    """

    def __init__(
        self, output_hashes: Sequence[bytes], references: _References, staying: set[bytes], seen: int, unused_since: int
    ) -> None:
        super().__init__()
        self._output_hashes = output_hashes
        self._references = references
        self._staying = staying
        self._seen = seen
        self._unused_since = unused_since
        self.removed: dict[bytes, int] = {}

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        try:
            found = {each for each in self._output_hashes if self._is_used(commit, each)}
            for output_hash, encoded in index.path_infos_since(txn, self._seen):
                found.add(output_hash)
                found.update(reference.output_hash for reference in PathInfo.stored(encoded).references)
            _check(index)
        except StoreError as error:
            return error
        self._staying |= _closure(self._references, found)
        for output_hash in self._output_hashes:
            if output_hash not in self._staying:
                self.removed[output_hash] = commit.sequence()
                index.put_path_info(txn, output_hash, self.removed[output_hash], None)
        return None

    def _is_used(self, commit: Commit, output_hash: bytes) -> bool:
        value = commit.index.record_in(commit.txn, used_key(output_hash))
        return value is not None and read_hour(value) >= self._unused_since


class SayRemoved(Request):
    """The journal says that paths are removed, with the sequence numbers that the index has."""

    is_durable = True
    appends = True

    def __init__(self, removed: Mapping[bytes, int]) -> None:
        super().__init__()
        self._removed = removed

    def apply(self, commit: Commit) -> Result:
        commit.entries += [path_info_record(each, sequence, None) for each, sequence in self._removed.items()]
        over = [each for each in self._removed if not commit.index.has_path_info(commit.txn, each)]  # and was not put again
        if over:
            commit.put_records({used_key(each): None for each in over}, durable=True)
        return None


def _look_at_page(
    index: Index, last: bytes, own: Mapping[bytes, bytes], references: dict[bytes, Sequence[bytes]], needed: set[bytes]
) -> bytes | None:
    """Note what the next path infos refer to: those that are candidates, and others. The output hash of the last one."""
    rows, behind = index.path_infos_behind(last, _PAGE)
    for output_hash, encoded in rows:
        to = [own[each.output_hash] for each in PathInfo.stored(encoded).references if each.output_hash in own]
        if output_hash in own:
            references[own[output_hash]] = [each for each in to if each != output_hash]
        else:
            needed.update(to)
    return behind


def _check(index: Index) -> None:
    """Remove nothing by an index that may have lost path infos."""
    if index.is_damaged:
        raise UnavailableError("no paths are removed: the index is damaged; it is made anew when the store is opened again")


def _closure(references: _References, found: Iterable[bytes]) -> set[bytes]:
    """The candidates among `found` paths, and all candidates that these refer to, directly or not."""
    closure: set[bytes] = set()
    waiting = list(found)
    while waiting:
        each = waiting.pop()
        if each in references and each not in closure:
            closure.add(each)
            waiting += references[each]
    return closure


def _referrers_first(references: _References) -> list[bytes]:
    """The candidates in an order in which each stands before those that it refers to. Those in a cycle are left out."""
    referrers = dict.fromkeys(references, 0)
    for to in references.values():
        for each in to:
            if each in referrers:
                referrers[each] += 1
    waiting = deque(each for each, count in referrers.items() if not count)
    order: list[bytes] = []
    while waiting:
        order.append(each := waiting.popleft())
        for other in references[each]:
            if other in referrers:
                referrers[other] -= 1
                if not referrers[other]:
                    waiting.append(other)
    return order

"""LocalRemoval: path infos are removed from a local store while others put and use paths.

What stays, and in which order the others go, is found out beside everybody's work. A path goes before those that it refers to. So a
transaction that removes some has to look only at these, and at what was put since: what is used by now stays, and so does all that
it refers to. A put that comes later finds the rows of what was removed.
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
from tvix_store.model.path_info import PathInfo
from tvix_store.services.removal import read_hour, used_key

_PAGE = 256
"""Rows that are taken from the index at a time, as with the list of path infos."""
_AT_ONCE = 10_000
"""Path infos that one transaction removes: some 0.2 s."""

_References = Mapping[bytes, Sequence[bytes]]
"""The candidates, each with those that it refers to, by output hashes."""


class LocalRemoval:
    """The Removal of a local store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def remove(self, output_hashes: Collection[bytes], *, unused_since: int) -> set[bytes]:
        seen, references = await self._engine.in_thread(_candidates, self._engine.index, output_hashes)
        order = await self._engine.in_thread(_referrers_first, references)
        removed: set[bytes] = set()
        staying: set[bytes] = set()
        for at in range(0, len(order), _AT_ONCE):
            request = RemovePathInfos(order[at : at + _AT_ONCE], references, staying, seen, unused_since)
            await asyncio.wrap_future(self._engine.committer.submit(request))
            removed |= request.removed
        return removed


class RemovePathInfos(Request):
    """Path infos are removed, but those in `staying`, which grows by what turns out to be used.

    seen: The sequence number from which on others may have put path infos that refer to them.
    removed: The output hashes of those that are removed, when it is done.
    """

    is_durable = True
    appends = True

    def __init__(
        self, output_hashes: Sequence[bytes], references: _References, staying: set[bytes], seen: int, unused_since: int
    ) -> None:
        super().__init__()
        self._output_hashes = output_hashes
        self._references = references
        self._staying = staying
        self._seen = seen
        self._unused_since = unused_since
        self.removed: frozenset[bytes] = frozenset()

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        found = {each for each in self._output_hashes if self._is_used(commit, each)}
        for output_hash, _, encoded in index.path_info_rows(txn, behind=self._seen):
            if encoded is not None:
                found.add(output_hash)
                found.update(reference.output_hash for reference in PathInfo.stored(encoded).references)
        self._staying |= _closure(self._references, found)
        removed = [each for each in self._output_hashes if each not in self._staying]
        for output_hash in removed:
            sequence = commit.sequence()
            commit.entries.append(path_info_record(output_hash, sequence, None))
            index.put_path_info(txn, output_hash, sequence, None)
        if removed:
            commit.put_records({used_key(each): None for each in removed}, durable=True)
        self.removed = frozenset(removed)
        return None

    def _is_used(self, commit: Commit, output_hash: bytes) -> bool:
        value = commit.index.record_in(commit.txn, used_key(output_hash))
        return value is not None and read_hour(value) >= self._unused_since


def _candidates(index: Index, wanted: Collection[bytes]) -> tuple[int, _References]:
    """A sequence number, and of the wanted paths those to which only such paths referred then."""
    with index.reading() as txn:
        seen = index.counter(txn, SEQUENCE)
    references: dict[bytes, Sequence[bytes]] = {}
    needed: set[bytes] = set()
    own = {each: each for each in wanted}  # so that there is one object for each hash
    last: bytes | None = None
    while rows := index.path_infos_behind(last, _PAGE):
        for output_hash, encoded in rows:
            to = [own[each.output_hash] for each in PathInfo.stored(encoded).references if each.output_hash in own]
            if output_hash in own:
                references[own[output_hash]] = [each for each in to if each != output_hash]
            else:
                needed.update(to)
        last = rows[-1][0]
    needed = _closure(references, needed)
    return seen, {each: to for each, to in references.items() if each not in needed}


def _closure(references: _References, found: Iterable[bytes]) -> set[bytes]:
    """Those of the candidates that are among the `found` ones, or that these refer to, and so on."""
    closure: set[bytes] = set()
    waiting = list(found)
    while waiting:
        each = waiting.pop()
        if each in references and each not in closure:
            closure.add(each)
            waiting += references[each]
    return closure


def _referrers_first(references: _References) -> list[bytes]:
    """The candidates in an order in which each stands before those that it refers to."""
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

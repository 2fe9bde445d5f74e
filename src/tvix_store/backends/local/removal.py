"""LocalRemoval: path infos are removed from a local store while others put and use paths.

What stays, and in which order the others go, is found out beside everybody's work. A path goes before those that it refers to. So a
transaction looks only at the paths that it is to remove, and at the paths that were put since. A path that is used by now stays,
with all paths that it refers to. A put that comes later looks in its own transaction for the paths that it requires.

A removal stands in the index first, and in the journal when that is committed. So an entry that says "removed" is never one that
was given up, and of two entries with the same sequence number it is the true one. If the process dies in between, the path would
come back with an index that is made anew, and its content might be collected by then. So the index counts what was not said, and a
collection first says all removals once more, where there is something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import SEQUENCE, UNSAID
from tvix_store.backends.local.records import path_info_record
from tvix_store.backends.local.requests import Commit, Request, Result
from tvix_store.errors import StoreError, UnavailableError
from tvix_store.model.path_info import PathInfo
from tvix_store.services.batches import parts
from tvix_store.services.reference_order import References, batches, closure
from tvix_store.services.removal import Guard, RemovalTerms, read_hour, used_key

_PAGE = 2000
"""Rows that are looked at in one go: some 20 ms in a thread."""
_AT_ONCE = 5000
"""Path infos that one transaction removes: some 0.3 s. Others' puts wait for it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What may go.

    seen: The sequence number from which on others may have put path infos that are not known here.
    references: What may go, each with those to which it refers.
    staying: What stays. It grows.
    referrers: Paths that stay, and refer to one that may go although they do. It grows.
    """

    seen: int
    references: References
    staying: set[bytes]
    referrers: set[bytes]


class LocalRemoval:
    """The Removal of a local store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        removed: set[bytes] = set()
        if not output_hashes:
            return removed
        terms = RemovalTerms(unused_since, ignore_references, guard)
        plan = await self._planned(output_hashes, terms)
        for batch in await self._engine.in_thread(batches, plan.references, _AT_ONCE):
            request = RemovePathInfos(batch, plan, terms)
            await self._done(request)
            if request.removed:
                # Before the journal says "removed": see `given_up`.
                for some in parts(sorted(plan.referrers), _AT_ONCE):
                    await self._done(RenewPathInfos(some))
                await self._done(SayRemoved(request.removed, len(request.removed)))
                removed |= request.removed.keys()
        return removed

    async def _done(self, request: Request) -> None:
        await asyncio.wrap_future(self._engine.committer.submit(request))

    async def _planned(self, wanted: Collection[bytes], terms: RemovalTerms) -> _Plan:
        """A sequence number, and of the wanted paths those to which only such paths referred then."""
        index = self._engine.index
        _check(index)
        with index.reading() as txn:
            seen = index.counter(txn, SEQUENCE)
        look = _Look({each: each for each in wanted})  # so that there is one object for each hash
        last: bytes | None = b""
        while last is not None:
            last = await self._engine.in_thread(look.at_page, index, last)
        _check(index)
        if terms.ignore_references:
            return _Plan(seen, dict.fromkeys(look.references, ()), set(), look.referrers)
        staying = closure(look.references, look.needed)
        return _Plan(seen, {each: to for each, to in look.references.items() if each not in staying}, set(), set())


class RemovePathInfos(Request):
    """Path infos are removed from the index, as far as the plan lets them go.

    removed: The sequence numbers of the removals by output hash, when it is done.
    """

    def __init__(self, output_hashes: Sequence[bytes], plan: _Plan, terms: RemovalTerms) -> None:
        super().__init__()
        self._output_hashes = output_hashes
        self._plan = plan
        self._terms = terms
        self.removed: dict[bytes, int] = {}

    def apply(self, commit: Commit) -> Result:
        index, txn, plan, guard = commit.index, commit.txn, self._plan, self._terms.guard
        if guard is not None and index.record_in(txn, guard.key) != guard.value:
            return None
        try:
            found = {each for each in self._output_hashes if self._is_used(commit, each)}
            for output_hash, encoded in index.path_infos_since(txn, plan.seen):
                found.add(output_hash)
                references = set(PathInfo.stored(encoded).output_hashes[1])
                if not self._terms.ignore_references:
                    found |= references
                elif not references.isdisjoint(plan.references):
                    plan.referrers.add(output_hash)
            _check(index)
        except StoreError as error:
            return error
        plan.staying.update(closure(plan.references, found))
        for output_hash in self._output_hashes:
            if output_hash not in plan.staying:
                self.removed[output_hash] = commit.number_of_removal()
                index.put_path_info(txn, output_hash, self.removed[output_hash], None)
        if self.removed:
            index.count(txn, UNSAID, len(self.removed))
        return None

    def _is_used(self, commit: Commit, output_hash: bytes) -> bool:
        if self._terms.unused_since is None:
            return False
        value = commit.index.record_in(commit.txn, used_key(output_hash))
        return value is not None and read_hour(value) >= self._terms.unused_since


class RenewPathInfos(Request):
    """Path infos get a new sequence number, in the journal too. They are no puts that were given up before something else."""

    is_durable = True
    appends = True

    def __init__(self, output_hashes: Sequence[bytes]) -> None:
        super().__init__()
        self._output_hashes = output_hashes

    def apply(self, commit: Commit) -> Result:
        sequence = commit.sequence()
        for each in self._output_hashes:
            encoded = commit.index.path_info_in(commit.txn, each)
            if encoded is not None:
                commit.entries.append(path_info_record(each, sequence, encoded))
                commit.index.put_path_info(commit.txn, each, sequence, encoded)
        return None


class SayRemoved(Request):
    """The journal says that paths are removed, with the sequence numbers that the index has. So many fewer are `unsaid` then."""

    is_durable = True
    appends = True

    def __init__(self, removed: Mapping[bytes, int], unsaid: int) -> None:
        super().__init__()
        self._removed = removed
        self._unsaid = unsaid

    def apply(self, commit: Commit) -> Result:
        commit.entries += [path_info_record(each, sequence, None) for each, sequence in self._removed.items()]
        over = [each for each in self._removed if not commit.index.has_path_info(commit.txn, each)]  # and was not put again
        if over:
            commit.put_records({used_key(each): None for each in over}, durable=True)
        commit.index.count(commit.txn, UNSAID, -min(self._unsaid, commit.index.counter(commit.txn, UNSAID)))
        return None


def say_all_again(engine: Engine) -> None:
    """Let the journal say all removals, where a process may have died before it said one. Waits for that.

    Raises:
        StoreError: the store cannot be written.
    """
    index = engine.index
    with index.reading() as txn:
        unsaid = index.counter(txn, UNSAID)
        removed = [(each, sequence) for each, sequence, encoded in index.path_info_rows(txn) if encoded is None] if unsaid else []
    for some in parts(removed, _AT_ONCE):
        engine.committer.submit(SayRemoved(dict(some), 0)).result()
    if unsaid:
        engine.committer.submit(SayRemoved({}, unsaid)).result()


class _Look:
    """A look at all path infos, for those that are wanted: `own` has one object for each.

    references: Those of the wanted ones that are there, each with the wanted ones to which it refers.
    needed: Those to which others refer, and
    referrers: these others.
    """

    def __init__(self, own: Mapping[bytes, bytes]) -> None:
        self._own = own
        self.references: dict[bytes, Sequence[bytes]] = {}
        self.needed: set[bytes] = set()
        self.referrers: set[bytes] = set()

    def at_page(self, index: Index, last: bytes) -> bytes | None:
        """Look at the next path infos. The output hash of the last one; None where that was all."""
        own = self._own
        rows, behind = index.path_infos_behind(last, _PAGE)
        for output_hash, encoded in rows:
            to = [own[each] for each in PathInfo.stored(encoded).output_hashes[1] if each in own]
            if output_hash in own:
                self.references[own[output_hash]] = [each for each in to if each != output_hash]
            elif to:
                self.needed.update(to)
                self.referrers.add(output_hash)
        return behind


def _check(index: Index) -> None:
    """Remove nothing by an index that may have lost path infos."""
    if index.is_damaged:
        raise UnavailableError("no paths are removed: the index is damaged; it is made anew when the store is opened again")

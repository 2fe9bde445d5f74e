"""The steps of a collection, each a request to the committer: one transaction, that looks at what it changes."""

from __future__ import annotations

from collections.abc import Container, Sequence

from tvix_store.backends.local.contents import Name, Written
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import COLLECTED, PUBLISHED_AT
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.backends.local.requests import Commit, Request, Result
from tvix_store.backends.local.taking_back import take_back
from tvix_store.errors import UnavailableError


def published_at(index: Index, txn: Txn) -> int:
    """When what is condemned was published (seconds since 1970); 0 where nothing is, or that was not."""
    return index.counter(txn, PUBLISHED_AT)


class Condemn(Request):
    """Contents are condemned, if they still lie where they were found. `condemned` are these, when it is done.

    Each comes in a sequence of its own, but for the segments of a chunk list: these go together, or not at all.
    """

    def __init__(self, found: Sequence[Sequence[Written]]) -> None:
        super().__init__()
        self._found = found
        self.condemned: list[Written] = []

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        if published_at(index, txn):
            index.put_counter(txn, PUBLISHED_AT, 0)
        for some in self._found:
            kind, key = some[0].kind, some[0].key
            if kind is not Kind.CHUNK_LIST or index.chunk_list(txn, key[:KEY_SIZE]) == some:
                self.condemned += [each for each in some if index.condemn(txn, each)]
        return None


class Rescue(Request):
    """Condemned contents are live again: they are needed after all. It is refused where that cannot be done of one of them."""

    def __init__(self, names: Sequence[Name]) -> None:
        super().__init__()
        self._names = names

    def apply(self, commit: Commit) -> Result:
        if take_back(commit.index, commit.reader, commit.txn, self._names):
            return None
        return UnavailableError("nothing is deleted: a chunk list that is needed cannot be read, or lacks a part")


class Drop(Request):
    """All that is condemned is forgotten, if it is the same that was published at a time (seconds since 1970)."""

    def __init__(self, published: int) -> None:
        super().__init__()
        self._published = published
        self.is_dropped = False

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        if self._published and published_at(index, txn) == self._published:
            index.drop_all_condemned(txn)
            index.put_counter(txn, PUBLISHED_AT, 0)
            index.count(txn, COLLECTED, 1)
            self.is_dropped = True
        return None


class Publish(Request):
    """What is condemned counts from `now` (seconds since 1970) on. What is known of NARs of other roots than `needed` goes."""

    def __init__(self, needed: Container[bytes], now: int) -> None:
        super().__init__()
        self._needed = needed
        self._now = now

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        index.keep_nar_facts(txn, self._needed)
        index.count(txn, COLLECTED, 1)
        index.put_counter(txn, PUBLISHED_AT, max(self._now, 1))
        return None

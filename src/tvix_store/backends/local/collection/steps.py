"""The steps of a collection, each a request to the committer: one transaction, that looks at what it changes."""

from __future__ import annotations

from collections.abc import Container, Sequence

from tvix_store.backends.local.chunk_lists import chunk_list_key, is_first
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
    """Contents are condemned, if they still lie where they were found. `condemned` are these, when it is done."""

    def __init__(self, contents: Sequence[Written]) -> None:
        super().__init__()
        self._contents = contents
        self.condemned: list[Written] = []

    def apply(self, commit: Commit) -> Result:
        index, txn = commit.index, commit.txn
        if published_at(index, txn):
            index.count(txn, PUBLISHED_AT, -published_at(index, txn))
        for each in self._contents:
            # Of a list that was put anew, one part after the other, the rest stays.
            if not _has_live_beginning(index, txn, each) and index.condemn(txn, each):
                self.condemned.append(each)
        return None


class Rescue(Request):
    """Condemned contents are live again: they are needed after all. An error where one is not: nothing may be dropped then."""

    def __init__(self, names: Sequence[Name]) -> None:
        super().__init__()
        self._names = names

    def apply(self, commit: Commit) -> Result:
        lacking = take_back(commit.index, commit.reader, commit.txn, self._names)
        if lacking:
            return UnavailableError(f"nothing is collected: {len(lacking)} chunk lists can't be read that store paths need")
        return None


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
            index.count(txn, PUBLISHED_AT, -self._published)
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
        index.count(txn, PUBLISHED_AT, max(self._now, 1) - published_at(index, txn))
        return None


def _has_live_beginning(index: Index, txn: Txn, content: Written) -> bool:
    """Whether a content is a later segment of a chunk list whose first segment is live."""
    kind, key, _, _ = content
    if kind is not Kind.CHUNK_LIST or is_first(key):
        return False
    return index.place_in(txn, kind, chunk_list_key(key[:KEY_SIZE], 0)) is not None

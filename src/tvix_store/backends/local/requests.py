"""Requests to the committer: what each of them stores, and how it applies itself to the transaction of a commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from tvix_store.backends.local.chunk_lists import is_first
from tvix_store.backends.local.contents import Content, Written, name_of
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.ledger import COLLECTED, SEQUENCE, STORED_BYTES, UNIQUE_BYTES
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.records import KEY_SIZE, Kind, NewRecord, accepted, keyed_records, path_info_record
from tvix_store.backends.local.taking_back import make_whole
from tvix_store.errors import ForgottenError, IncompleteError, StoreError, UnavailableError
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.records import Changes
from tvix_store.services.staging import NO_RECORDS

_MOST_GIVEN_UP = 1 << 20
"""More than the path infos and records that one commit puts."""


class NarOfNode(NamedTuple):
    """The key of a node (`path_infos.node_key`), what is true of its NAR, and since when: what the index had COLLECTED then."""

    node_key: bytes
    facts: NarFacts
    since: int


Result: TypeAlias = PathInfo | StoreError | None
"""What a request comes to. An error of its own harms no other request of the same commit."""


@dataclass(slots=True)
class Commit:
    """One transaction of the index, and the entries that are appended to the pack before it ends."""

    index: Index
    txn: Txn
    reader: PackReader
    entries: list[NewRecord] = field(default_factory=list)
    taken_away: int = 0
    """How many numbers `number_of_removal` has given out."""
    refused: set[bytes] = field(default_factory=set)
    """Blobs whose chunk lists were not named: a chunk that was there was collected meanwhile."""

    def sequence(self) -> int:
        """The next sequence number: of two path infos or records with one key, the higher number counts."""
        return self.index.count(self.txn, SEQUENCE, 1)

    def number_of_removal(self) -> int:
        """The sequence number of what takes something away.

        It is higher than those of puts in a commit that was given up: its entries may be read again, and must not count.
        """
        self.taken_away += 1
        return self.index.counter(self.txn, SEQUENCE) + _MOST_GIVEN_UP + self.taken_away

    def number_behind(self, others: Iterable[int]) -> int:
        """A sequence number behind those of other changes, some of which may be removals of this commit."""
        number = self.sequence()
        return self.number_of_removal() if self.taken_away and max(others, default=0) >= number else number

    def end(self) -> None:
        """Let the next commit go on with higher numbers."""
        if self.taken_away:
            self.index.count(self.txn, SEQUENCE, _MOST_GIVEN_UP + self.taken_away)

    def name_contents(self, contents: Iterable[Written]) -> list[Written]:
        """Name contents; those that were new.

        A blob becomes visible with the first segment of its chunk list. All other segments, and its chunks, must be there then.
        """
        unique = stored = 0
        named: list[Written] = []
        # In the order of the keys: neighbours on a page of the index are written while it is at hand.
        for each in sorted(contents, key=name_of):
            kind, key, blob_size, place = each
            # Another process may have been first; its entry stays, ours is garbage.
            if self.index.put_content(self.txn, kind, key, place, blob_size):
                named.append(each)
                if kind is Kind.CHUNK:
                    unique += place.length
                    stored += place.stored
        for each in named:  # chunks come before: see `Kind`
            if each.kind is Kind.CHUNK_LIST and is_first(each.key):
                blob = each.key[:KEY_SIZE]
                try:
                    is_whole = make_whole(self.index, self.reader, self.txn, blob)
                except UnavailableError:  # just after it was written
                    is_whole = False
                if not is_whole:
                    self.index.drop_chunk_list(self.txn, blob)
                    self.refused.add(blob)
        if unique:
            self.index.count(self.txn, UNIQUE_BYTES, unique)
            self.index.count(self.txn, STORED_BYTES, stored)
        return named

    def name_pack(self, number: int, size: int) -> None:
        """Commit at least `size` bytes of a pack."""
        committed, synced = self.index.pack_sizes(self.txn, number)
        if size > committed:
            self.index.put_pack_sizes(self.txn, number, size, synced)

    def accept(self, sizes: Mapping[int, int]) -> None:
        """Say that so many bytes of other packs are accepted: what they say themselves may be damaged, or cut off."""
        if sizes:
            self.entries.append(accepted(self.sequence(), sizes))

    def refusal(self, contents: Iterable[Content | Written]) -> StoreError | None:
        """Why a request with these contents is refused, if it is."""
        if self.refused:
            for each in contents:
                if each.kind is Kind.CHUNK_LIST and each.key[:KEY_SIZE] in self.refused:
                    return UnavailableError(f"parts of blob b3:{each.key[:KEY_SIZE].hex()} were collected meanwhile; put it again")
        return None

    def put_nar(self, nar: NarOfNode | None, records: Mapping[bytes, bytes]) -> None:
        """Remember what is true of a NAR, and records that are not durable."""
        if nar is not None:
            self.put_nar_facts(nar)
        if records:
            self.put_records(records, durable=False)

    def put_nar_facts(self, nar: NarOfNode) -> None:
        """Remember what is true of a NAR, unless content may have been collected since that was found out."""
        if self.index.counter(self.txn, COLLECTED) == nar.since:
            self.index.put_nar_facts(self.txn, nar.node_key, nar.facts)

    def put_records(self, records: Mapping[bytes, bytes | None], *, durable: bool) -> None:
        before = (self.index.record_sequence(self.txn, key) for key in records) if self.taken_away else ()
        sequence = self.number_of_removal() if None in records.values() else self.number_behind(before)
        self.entries.append(keyed_records(sequence, records, durable=durable))
        for key, value in records.items():
            self.index.put_record(self.txn, key, sequence, value)


class Request:
    """Asks for something. `contents` are stored before it applies itself; the future `done` is set when all has happened."""

    is_lazy = False
    """Whether it is enough that the contents are written; a later commit names them."""
    is_durable = False
    """Whether all that was put before is brought to the disk first, and its own entries then."""
    appends = False
    """Whether it may append entries when it is applied."""
    leaves_pack = False
    """Whether the committer gives up its pack when this is done."""

    def __init__(self, contents: Sequence[Content] = ()) -> None:
        self.contents = contents
        self.done: Future[PathInfo | None] = Future()

    @property
    def size(self) -> int:
        return sum(len(content.payload) for content in self.contents)

    def apply(self, commit: Commit) -> Result:
        """Do what is asked beside storing the contents."""
        return None


class Look(Request):
    """Asks for nothing: what lies in lost packs is forgotten, and what is wanted back taken back, before any request is done."""


class LeavePack(Request):
    """Asks the committer to give up its pack: others can lock it then."""

    leaves_pack = True


class PutContents(Request):
    """Contents, to be visible when it is done."""


class WriteContents(Request):
    """Contents that nobody needs to see yet."""

    is_lazy = True


class Sync(Request):
    """Everything put before is to be on the disk itself."""

    is_durable = True


class PutTree(Request):
    """Contents, what is true of their NAR, and records that are not durable."""

    def __init__(self, contents: Sequence[Content], nar: NarOfNode | None, records: Mapping[bytes, bytes]) -> None:
        super().__init__(contents)
        self._nar = nar
        self._records = records
        self.appends = bool(records)

    def apply(self, commit: Commit) -> Result:
        refusal = commit.refusal(self.contents)
        if refusal is None:
            commit.put_nar(self._nar, self._records)
        return refusal


class PutNarFacts(Request):
    """What is true of the NAR of a node."""

    def __init__(self, nar: NarOfNode) -> None:
        super().__init__()
        self._nar = nar

    def apply(self, commit: Commit) -> Result:
        commit.put_nar_facts(self._nar)
        return None


class NamePack(Request):
    """A pack that another writer has begun, of `size` bytes, is one of this store."""

    def __init__(self, number: int, size: int) -> None:
        super().__init__()
        self._number = number
        self._size = size

    def apply(self, commit: Commit) -> Result:
        commit.name_pack(self._number, self._size)
        return None


class NameContents(Request):
    """Contents that another writer has written to its packs. Known contents keep their places.

    `sizes` says how many bytes of each pack count from then on, if any of its contents is new. There is no entry before that
    size that is not named: a replay begins there. In the same commit, what is true of their NAR, and records that are not durable.
    """

    def __init__(
        self,
        written: Sequence[Written],
        sizes: Mapping[int, int],
        nar: NarOfNode | None = None,
        records: Mapping[bytes, bytes] = NO_RECORDS,
    ) -> None:
        super().__init__()
        self._written = written
        self._sizes = sizes
        self._nar = nar
        self._records = records
        self.appends = bool(records)

    def apply(self, commit: Commit) -> Result:
        for number in {each.place.pack for each in commit.name_contents(self._written)}:
            commit.name_pack(number, self._sizes[number])
        refusal = commit.refusal(self._written)
        if refusal is not None:
            return refusal
        commit.put_nar(self._nar, self._records)
        return None


class PutRecords(Request):
    """Records of the record service; the value None deletes one."""

    appends = True

    def __init__(self, records: Mapping[bytes, bytes | None], *, durable: bool) -> None:
        super().__init__()
        self._records = records
        self.is_durable = durable

    def apply(self, commit: Commit) -> Result:
        commit.put_records(self._records, durable=self.is_durable)
        return None


class ExchangeRecords(Request):
    """New values, or None, for records that still have the value that is expected. `changed`: how many these were."""

    appends = True

    def __init__(self, changes: Changes) -> None:
        super().__init__()
        self._changes = changes
        self.changed = 0

    def apply(self, commit: Commit) -> Result:
        due = {key: new for key, (expected, new) in self._changes.items() if commit.index.record_in(commit.txn, key) == expected}
        if due:
            commit.put_records(due, durable=False)
        self.changed = len(due)
        return None


class PutPathInfo(Request):
    """A path info, durably; its result is what is stored now. `whole` is the key of a node of whose NAR the facts must be known."""

    is_durable = True
    appends = True

    def __init__(
        self, path_info: PathInfo, trust: Trust = NOBODY, requires: Collection[StorePath] = (), whole: bytes | None = None
    ) -> None:
        super().__init__()
        self._whole = whole
        self._requires = requires
        self._path_info = path_info
        self._trust = trust

    def apply(self, commit: Commit) -> Result:
        output_hash = self._path_info.store_path.output_hash
        if self._whole is not None and not commit.index.has_nar_facts(commit.txn, self._whole):
            return ForgottenError(f"what was known of the NAR of {self._path_info.store_path} is forgotten")
        stored = commit.index.path_info_in(commit.txn, output_hash)
        for required in self._requires:
            if not commit.index.has_path_info(commit.txn, required.output_hash):
                return IncompleteError(f"{self._path_info.store_path} refers to {required}, not in the store; put that first")
        try:
            merged = self._path_info if stored is None else PathInfo.stored(stored).merged(self._path_info, self._trust)
        except StoreError as error:
            return error
        if merged.encoded != stored:
            sequence = commit.number_behind(self._removals(commit))
            commit.entries.append(path_info_record(output_hash, sequence, merged.encoded))
            commit.index.put_path_info(commit.txn, output_hash, sequence, merged.encoded)
        return merged

    def _removals(self, commit: Commit) -> Iterator[int]:
        """The numbers of removals, in this commit, of the path and of those that it refers to."""
        paths = (self._path_info.store_path, *self._path_info.references) if commit.taken_away else ()
        return (commit.index.removed_at(commit.txn, each.output_hash) for each in paths)

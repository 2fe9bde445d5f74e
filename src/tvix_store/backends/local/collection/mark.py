"""Mark: all content that the roots of a store need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby

from blake3 import blake3

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.collection.digest_set import DigestSet
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.contents import Written
from tvix_store.backends.local.index import Index
from tvix_store.backends.local.pack_reader import PackReader
from tvix_store.backends.local.path_infos import node_key
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.errors import CorruptError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import child_digests
from tvix_store.model.nodes import DirectoryNode, FileNode, Node

_AT_ONCE = 1000
"""Directories that are read together, and rows of the index that are looked at in one read transaction."""

_TRIES = 3
"""How often marked contents are counted before some are said to be missing."""


class Mark:
    """What was reached so far.

    nodes: The keys of the root nodes (see `path_infos.node_key`).
    directories, blobs: Their digests; of blobs also those of their chunks.
    committed: How many bytes of each pack were committed when the mark began. What lies behind them is new.
    """

    def __init__(self, index: Index, reader: PackReader, watch: Watch) -> None:
        self._watch = watch
        self._index = index
        self._reader = reader
        with index.reading() as txn:
            self._paths = index.rows(txn, index.path_infos)
            self.committed = index.committed_packs(txn)
            self.nodes = DigestSet(index.rows(txn, index.path_infos))
            self.directories = DigestSet(index.rows(txn, index.directories))
            self.blobs = DigestSet(index.rows(txn, index.chunks) + index.rows(txn, index.chunk_lists))
        self._waiting: list[bytes] = []
        self._added = 0

    def add(self, roots: Iterable[Node]) -> None:
        """Mark the directories and files that root nodes reach; symlinks need nothing.

        Raises:
            CorruptError: a directory is missing or damaged. Nobody knows what it needs.
        """
        for root in roots:
            self._added += 1
            if not self.nodes.add(node_key(root)):
                continue
            if isinstance(root, FileNode):
                self.blobs.add(root.digest.raw)
            elif isinstance(root, DirectoryNode):
                self._wait_for(root.digest.raw)
            if len(self._waiting) >= _AT_ONCE:
                self._enter()
        self._enter()

    def add_blob(self, digest: Digest) -> None:
        self.blobs.add(digest.raw)

    def add_chunks(self) -> None:
        """Mark the chunks of all marked blobs, and see that all that is marked is there. To be called when all roots are added.

        Raises:
            CorruptError: something is missing, or damaged.
        """
        for _ in range(_TRIES):
            missing = self._missing()
            if missing <= 0:
                return
        raise CorruptError(f"{missing} contents are missing that store paths need; `tvix-store check` names the paths")

    def _missing(self) -> int:
        """Mark the chunks of all marked blobs; how many contents are not there. What is taken back meanwhile may be missed."""
        lists = 0
        for blob, segments in self._lists():
            self._watch.tell("", 0, 0)
            if blob in self.blobs:
                lists += not self._is_chunk(blob)
                for each in segments:
                    for chunk, _ in parse_segment(self._reader.read_checked(each.place)).entries:
                        self.blobs.add(chunk)
        chunks = sum(key in self.blobs for key in self._index.all_keys(Kind.CHUNK))
        for key in self._index.all_keys(Kind.CHUNK, condemned=True):
            chunks += key in self.blobs and self._index.live_place(Kind.CHUNK, key) is None
        missing = len(self.blobs) - chunks - lists
        if EMPTY.raw in self.blobs and not self._is_chunk(EMPTY.raw):
            missing -= 1  # nobody needs to store it
        return missing

    def needed(self, kind: Kind) -> DigestSet:
        """The digests that contents of a kind are needed by."""
        return self.directories if kind is Kind.DIRECTORY else self.blobs

    def is_new(self, content: Written) -> bool:
        """Whether a content was stored since the mark began."""
        return content.place.offset + content.place.stored > self.committed.get(content.place.pack, 0)

    def chunks_of_lists(self) -> Iterator[bytes]:
        """The chunks that live chunk lists name, marked or not; of those that can be read."""
        for each in self._index.all_contents(Kind.CHUNK_LIST):
            self._watch.tell("", 0, 0)
            with suppress(CorruptError):
                for chunk, _ in parse_segment(self._reader.read_checked(each.place)).entries:
                    yield chunk

    def _lists(self) -> Iterator[tuple[bytes, Sequence[Written]]]:
        """All blobs with chunk lists, and the segments of each; condemned lists where there is no live one."""
        live = self._index.all_contents(Kind.CHUNK_LIST)
        for blob, segments in groupby(live, lambda each: each.key[:KEY_SIZE]):
            yield blob, list(segments)
        condemned = self._index.all_contents(Kind.CHUNK_LIST, condemned=True)
        for blob, segments in groupby(condemned, lambda each: each.key[:KEY_SIZE]):
            with self._index.reading() as txn:
                is_live = bool(self._index.chunk_list(txn, blob))
            if not is_live:
                yield blob, list(segments)

    def _is_chunk(self, digest: bytes) -> bool:
        with self._index.reading() as txn:
            return self._index.is_named(txn, Kind.CHUNK, digest)

    def _wait_for(self, directory: bytes) -> None:
        if self.directories.add(directory):
            self._waiting.append(directory)

    def _enter(self) -> None:
        """Go through the directories that wait, and all below them. The last come first: so few wait at a time."""
        while self._waiting:
            self._watch.tell("marked", self._added, max(self._added, self._paths))
            some = self._waiting[-_AT_ONCE:]
            del self._waiting[-_AT_ONCE:]
            for directory, content in self._read(some):
                if blake3(content).digest() != directory:
                    raise _lacks(directory, "damaged")
                directories, files = child_digests(bytes(content))
                for each in directories:
                    self._wait_for(each)
                for each in files:
                    self.blobs.add(each)

    def _read(self, directories: Sequence[bytes]) -> list[tuple[bytes, memoryview]]:
        places = []
        with self._index.reading() as txn:
            for each in directories:
                place = self._index.place_in(txn, Kind.DIRECTORY, each) or self._index.place_in(
                    txn, Kind.DIRECTORY, each, condemned=True
                )
                if place is None:
                    raise _lacks(each, "missing")
                places.append(place)
        return list(zip(directories, self._reader.read_many(places), strict=True))


def _lacks(directory: bytes, how: str) -> CorruptError:
    return CorruptError(f"directory b3:{directory.hex()} is {how}, and store paths need it; `tvix-store check` names them")

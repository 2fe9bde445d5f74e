"""Fitting: how many paths fit in a number of bytes, with all content that they need, each content once."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.backends.local.chunk_lists import parse_segment
from tvix_store.backends.local.collection.digest_set import DigestSet
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import HEADER_SIZE
from tvix_store.model.directory import child_digests
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.path_info import PathInfo


class Fitting:
    """Adds up what nodes need. What is missing counts nothing: a check tells of it."""

    def __init__(self, engine: Engine, watch: Watch) -> None:
        self._engine = engine
        self._index = engine.index
        self._watch = watch
        self._seen = DigestSet()
        self.size = 0
        """Bytes in packs so far."""

    def count(self, output_hashes: Sequence[bytes], most: int) -> int:
        """How many of the paths, from the first on, fit in `most` bytes.

        Raises:
            CorruptError: a directory or a chunk list is damaged.
            StoppedError: nobody waits for it any more.
        """
        for done, output_hash in enumerate(output_hashes):
            self._watch.tell("measured", done, len(output_hashes))
            encoded = self._index.path_info(output_hash)
            if encoded is not None:
                self.size += HEADER_SIZE + len(encoded)
                self._add(PathInfo.root_of(encoded))
            if self.size > most:
                return done
        return len(output_hashes)

    def _add(self, root: Node) -> None:
        if isinstance(root, FileNode):
            self._add_blob(root.digest.raw)
        waiting = [root.digest.raw] if isinstance(root, DirectoryNode) else []
        while waiting:
            digest = waiting.pop()
            if self._seen.add(digest):
                place = self._index.directory(digest)
                if place is not None:
                    self._take(place)
                    directories, files = child_digests(self._engine.payload(digest, place))
                    waiting += directories
                    for file in files:
                        self._add_blob(file)

    def _add_blob(self, digest: bytes) -> None:
        if not self._seen.add(digest):
            return
        place = self._index.chunk(digest)
        if place is not None:
            self._take(place)
            return
        with self._index.reading() as txn:
            segments = self._index.chunk_list(txn, digest)
        for segment in segments:
            self._take(segment.place)
            for chunk, _ in parse_segment(self._engine.reader.read_checked(segment.place)).entries:
                if self._seen.add(chunk):
                    place = self._index.chunk(chunk)
                    if place is not None:
                        self._take(place)

    def _take(self, place: Place) -> None:
        self.size += HEADER_SIZE + place.stored


def bytes_on_disk(engine: Engine) -> int:
    """Bytes of the store's packs and index."""
    with engine.index.reading() as txn:
        packs = sum(engine.index.committed_packs(txn).values())
    return packs + engine.index.file_size()

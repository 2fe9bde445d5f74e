"""Whether content is there, seen past the services of a local store: nothing is taken back by that look."""

from __future__ import annotations

from blake3 import blake3

from tvix_store.backends.local.chunk_lists import chunk_list_key, parse_segment
from tvix_store.backends.local.damage import opened
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.environment import Txn
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import KEY_SIZE, Kind
from tvix_store.errors import CorruptError
from tvix_store.model.digest import EMPTY
from tvix_store.model.directory import child_digests
from tvix_store.model.nodes import DirectoryNode, FileNode, Node


class RawContent:
    """What the index of an engine names at a moment, live or condemned."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._index = engine.index

    def is_whole(self, *nodes: Node) -> bool:
        """Whether all that root nodes reach is there, byte for byte."""
        with self._index.reading() as txn:
            return all(self._is_whole(txn, node) for node in nodes)

    def holds(self, blob: bytes) -> bool:
        """Whether all bytes of a blob are there."""
        with self._index.reading() as txn:
            return self._holds(txn, blob)

    def lists_without_chunks(self) -> list[str]:
        """The blobs with live chunk lists that lack a segment or a chunk, whose rows alone are looked at."""
        found = []
        with self._index.reading() as txn:
            lists: dict[bytes, list[Place]] = {}
            for each in self._index.contents(txn, Kind.CHUNK_LIST):
                lists.setdefault(each.key[:KEY_SIZE], []).append(each.place)
            for blob, places in lists.items():
                segments = [parse_segment(self._engine.reader.read_checked(place)) for place in places]
                if segments[0].offset:
                    continue  # nobody sees it without its first one
                at = 0
                for segment in segments:
                    is_whole = segment.offset == at and all(
                        self._index.is_named(txn, Kind.CHUNK, chunk) for chunk, _ in segment.entries
                    )
                    at = segment.end if is_whole else -1
                if at != segments[0].blob_size:
                    found.append(blob.hex())
        return found

    def _is_whole(self, txn: Txn, node: Node) -> bool:
        if isinstance(node, FileNode):
            return self._holds(txn, node.digest.raw)
        if not isinstance(node, DirectoryNode):
            return True
        waiting, seen = [node.digest.raw], set()
        while waiting:
            digest = waiting.pop()
            content = self._payload(txn, Kind.DIRECTORY, digest)
            if content is None:
                return False
            directories, files = child_digests(content)
            if not all(self._holds(txn, each) for each in files):
                return False
            waiting += [each for each in directories if each not in seen]
            seen.update(directories)
        return True

    def _holds(self, txn: Txn, blob: bytes) -> bool:
        if blob == EMPTY.raw or self._payload(txn, Kind.CHUNK, blob) is not None:
            return True
        hasher, at, size = blake3(), 0, 1
        while at < size:
            place = self._place(txn, Kind.CHUNK_LIST, chunk_list_key(blob, at))
            if place is None:
                return False
            segment = parse_segment(self._engine.reader.read_checked(place))
            for chunk, _ in segment.entries:
                content = self._payload(txn, Kind.CHUNK, chunk)
                if content is None:
                    return False
                hasher.update(content)
            at, size = segment.end, segment.blob_size
        return hasher.digest() == blob

    def _payload(self, txn: Txn, kind: Kind, digest: bytes) -> bytes | None:
        for condemned in (False, True):
            place = self._index.place_in(txn, kind, digest, condemned=condemned)
            if place is not None:
                try:
                    return opened(digest, place, self._engine.reader.read(place))
                except CorruptError:
                    return None
        return None

    def _place(self, txn: Txn, kind: Kind, key: bytes) -> Place | None:
        return self._index.place_in(txn, kind, key) or self._index.place_in(txn, kind, key, condemned=True)

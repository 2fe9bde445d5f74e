"""Closures: all directories of a tree in one object, as snix has them.

It is a zstd frame. In it stands, for each directory from the root on, its length (u32-BE), and its canonical encoding.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping

from tvix_store.backends.objectstore.snix.frames import compress, decompress
from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.directory_graph import RootToLeaves

MOST = 64 << 20
"""Bytes of the directories of one tree: some million files. They lie in memory as a whole."""
_LENGTH = struct.Struct(">I")


class Closure:
    """The directories that `root` reaches, with itself, by their digests."""

    def __init__(self, root: Digest, directories: Mapping[Digest, Directory]) -> None:
        self.root = root
        self.directories = directories
        self.size = sum(len(directory.encoded) for directory in directories.values())

    def below(self, start: Digest) -> Iterator[Directory]:
        """The directory `start` and those below: it first, each after one that refers to it, each once."""
        waiting, seen = deque([start]), {start}
        while waiting:
            directory = self.directories[waiting.popleft()]
            yield directory
            for _, child in directory.directories():
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child.digest)

    def part(self, start: Digest) -> Closure:
        """The closure of a directory in it."""
        return Closure(start, {directory.digest: directory for directory in self.below(start)})


def encode(closure: Closure) -> bytes:
    """A closure as an object. Blocks."""
    parts = [part for each in closure.below(closure.root) for part in (_LENGTH.pack(len(each.encoded)), each.encoded)]
    return compress(b"".join(parts))


def decode(root: Digest, stored: bytes) -> Closure:
    """Read an object. Blocks.

    Raises:
        CorruptError: it is damaged, or not that of `root`.
    """
    content = decompress(stored, 2 * MOST, f"the tree {root}")
    order = RootToLeaves(root)
    directories: dict[Digest, Directory] = {}
    at = 0
    try:
        while at < len(content):
            (length,) = _LENGTH.unpack_from(content, at)
            encoded = content[at + _LENGTH.size : at + _LENGTH.size + length]
            at += _LENGTH.size + length
            directory = Directory.stored(Digest.of(encoded), encoded)
            order.add(directory)
            directories[directory.digest] = directory
        order.finish()
    except (InvalidError, struct.error) as error:
        raise CorruptError(f"the tree {root} is damaged: {error}") from None
    if at != len(content):
        raise CorruptError(f"the tree {root} is cut short")
    return Closure(root, directories)

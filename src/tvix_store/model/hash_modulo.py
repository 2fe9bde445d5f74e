"""HashModulo: the hash of content in which its own name may occur.

A store path's name follows from its hash, so the hash cannot be taken of the name: where the name's 32 characters occur, zeros are
hashed. Behind the content comes the position of each occurrence, as `|<decimal>`. Nix 2.17 to 2.34 leave the positions out, by
mistake; a path is as these versions made it. Content without an occurrence has its plain hash.
Source: nix, src/libstore/references.cc, HashModuloSink; paths that Nix 2.8 and 2.34 made.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from tvix_store.errors import ExhaustedError
from tvix_store.model.nix_hash import NixHash, hasher

MAX_OCCURRENCES = 1 << 22
"""Most occurrences that are taken; each costs 8 bytes of memory until the end."""


class ModuloHashes(NamedTuple):
    """The two hashes that may address the content, `with_positions` and `without`. They are equal where it does not hold its
    name."""

    occurrences: int
    with_positions: NixHash
    without: NixHash


class HashModulo:
    """Hashes content that comes in pieces, however it is cut."""

    def __init__(self, algorithm: str, own: bytes, *, max_occurrences: int = MAX_OCCURRENCES) -> None:
        self._algorithm = algorithm
        self._own = own
        self._max_occurrences = max_occurrences
        self._hash = hasher(algorithm)
        # Less than what may begin an occurrence; where in the content it is.
        self._tail = b""
        self._offset = 0
        self._occurrences = array("Q")

    def update(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            ExhaustedError: the name occurs too often.
        """
        content = self._tail + piece
        view = memoryview(content)
        done = 0
        while (found := content.find(self._own, done)) >= 0:
            if len(self._occurrences) == self._max_occurrences:
                raise ExhaustedError(f"content refers to itself more than {self._max_occurrences} times")
            self._occurrences.append(self._offset + found)
            self._hash.update(view[done:found])
            self._hash.update(bytes(len(self._own)))
            done = found + len(self._own)
        kept = max(done, len(content) - len(self._own) + 1)
        self._hash.update(view[done:kept])
        self._tail = content[kept:]
        self._offset += kept

    def finish(self) -> ModuloHashes:
        """The hashes of all the pieces."""
        self._hash.update(self._tail)
        without = self._hash.copy()
        for position in self._occurrences:
            self._hash.update(b"|%d" % position)
        return ModuloHashes(
            len(self._occurrences),
            NixHash(self._algorithm, self._hash.digest()),
            NixHash(self._algorithm, without.digest()),
        )

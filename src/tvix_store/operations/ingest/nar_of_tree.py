"""The NAR of a tree of a file system: its bytes, and their size and hash. Nothing is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tvix_store.model.path_info import NarFacts
from tvix_store.operations.ingest.scan import LargeFile, TreeReader, WholeFiles


def nar_pieces(path: Path) -> Iterator[bytes]:
    """The NAR of the directory, file or symlink at `path`, in pieces of up to some MiB. It reads all files, and blocks meanwhile.

    Raises:
        InvalidError, DeniedError: as `TreeReader`.
    """
    for event in TreeReader(path).events():
        match event:
            case WholeFiles():
                yield b"".join(event.nar)
            case LargeFile():
                yield from event.pieces()


def nar_of_tree(path: Path) -> NarFacts:
    """Size and SHA-256 of that NAR.

    Raises:
        InvalidError, DeniedError: as `nar_pieces`.
    """
    sha256, size = hashlib.sha256(), 0
    for piece in nar_pieces(path):
        sha256.update(piece)
        size += len(piece)
    return NarFacts(size, sha256.digest())

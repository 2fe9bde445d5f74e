"""nar_of_tree: size and hash of the NAR of a tree of a file system. Nothing is stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tvix_store.model.path_info import NarFacts
from tvix_store.operations.ingest.scan import LargeFile, TreeReader, WholeFiles


def nar_of_tree(path: Path) -> NarFacts:
    """Size and SHA-256 of the NAR of the directory, file or symlink at `path`. It reads all files, and blocks meanwhile.

    Raises:
        StoreError: as `TreeReader`.
    """
    sha256, size = hashlib.sha256(), 0
    for event in TreeReader(path).events():
        assert isinstance(event, WholeFiles | LargeFile), "without a cache, no file is known"
        for data in event.nar if isinstance(event, WholeFiles) else event.pieces():
            sha256.update(data)
            size += len(data)
    return NarFacts(size, sha256.digest())

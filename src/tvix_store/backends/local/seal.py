"""Seal: a checkpoint that says that the packs end where the index says, whatever lies behind.

A backup appends to packs that its last state names already. It may be interrupted there. Behind a common checkpoint, a replay would
enter what has arrived: path infos of one pack, without the content in another one. Behind a sealed checkpoint nothing is replayed.

A sealed store is opened as it is, in whatever boot. The first commit breaks the seal: the packs are cut to what the index names,
and a common checkpoint follows. From then on it is a store like any other one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tvix_store.backends.local.checkpoint import SEALED, Checkpoint, newest_meta
from tvix_store.backends.local.disk import disk_errors
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.file_lock import take
from tvix_store.backends.local.packs import PREFIX_SIZE, pack_numbers, pack_path
from tvix_store.errors import CorruptError


def is_sealed(store: Path) -> bool:
    try:
        checkpoint = Checkpoint.read(store)
    except CorruptError:
        return False
    return checkpoint is not None and checkpoint.is_sealed


def seal(store: Path, file: Path, highest_pack: int, durability: Durability) -> None:
    """Make `file` the index of a store, with a sealed checkpoint. Nobody has it open; it and all that it names are on the disk.

    Raises:
        CorruptError: it is no index.
    """
    meta = newest_meta(file)
    if meta is None:
        raise CorruptError(f"{file} is no index: it has no root")
    durability.sync_names(file.parent)
    Checkpoint(SEALED, file.name, highest_pack, meta).write(store, durability)


def cut_to(committed: Mapping[int, int], packs: Path, durability: Durability) -> None:
    """Cut off the packs what the index does not name, before the seal is broken.

    Packs that writers own are left alone. These have cut them already, and append.
    """
    with disk_errors(packs):
        for number in pack_numbers(packs):
            path, size = pack_path(packs, number), max(committed.get(number, 0), PREFIX_SIZE)
            with suppress(FileNotFoundError):
                if path.stat().st_size > size:
                    _cut(path, size, durability)


def _cut(path: Path, size: int, durability: Durability) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if take(fd, fcntl.LOCK_EX):
            durability.cut(fd, size)
            durability.sync_file(fd)
    finally:
        os.close(fd)

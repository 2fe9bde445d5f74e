"""Backup: a copy of a store that is in use, in a directory that is a store itself. See docs/design/backup.md.

The index is copied first: it says how many bytes of each pack count. Then the packs are copied up to there, and last the
checkpoint, which makes the new state the one of the backup. Packs only grow, so the next backup copies only what is new.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tvix_store.backends.local import settings
from tvix_store.backends.local.backup_target import BackupTarget
from tvix_store.backends.local.caches import CACHES, cache_directories
from tvix_store.backends.local.collection_lock import not_collecting
from tvix_store.backends.local.disk import disk_errors, make_directory
from tvix_store.backends.local.durability import Durability
from tvix_store.errors import InvalidError, NoStoreError


@dataclass(slots=True)
class BackupAccount:
    """What a backup has done. Sizes are of packs, in bytes."""

    to_copy: int = 0
    copied: int = 0
    there: int = 0
    """What the last backup had already."""
    damaged: int = 0
    """What was copied, and is damaged in the store."""
    packs: int = 0
    caches: int = 0


def backup(
    store: Path,
    directory: Path,
    account: BackupAccount,
    durability: Callable[[Path], Durability] = Durability,
    *,
    read_only: bool = False,
) -> Generator[int, None, None]:
    """Make `directory` a copy of the store in `store`, with its named caches. Gives the bytes of each step, for who waits.

    It may be ended between two steps, or killed anywhere: then the last backup is still there, and the next one goes on.
    `read_only`, nothing of the store is written, and what is copied is the last checkpoint.

    Raises:
        NoStoreError: there is no store.
        InvalidError: `directory` holds something else than a backup of it.
        UnavailableError: the store is not well, or the backup is in use.
        StoreError: the disk does not let us.
    """
    store, directory = store.resolve(), directory.resolve()
    if not (store / settings.FILE).exists():
        raise NoStoreError(f"there is no store in {store}")
    if store == directory or store in directory.parents or directory in store.parents:
        raise InvalidError(f"{directory} and the store in {store} lie in each other: choose another place for the backup")
    with ExitStack() as held:
        held.enter_context(not_collecting(store, makes_file=not read_only))

        def target(source: Path, copy: Path) -> BackupTarget:
            return held.enter_context(closing(BackupTarget(source, copy, durability(copy))))

        main, copies = target(store, directory), directory / CACHES
        with disk_errors(directory):
            sources = cache_directories(store)
            if sources:
                make_directory(copies)
        caches = [target(each, copies / each.name) for each in sources]
        # Content comes before the path infos that need it. So a later state of the store has the content of an earlier one of a
        # cache.
        for each in (*caches, main):
            each.take_state(read_only=read_only)
        # The store that is behind a cache counts first: its content is there when the cache shows paths.
        targets = (main, *caches)
        account.caches = len(caches)
        account.packs = sum(len(each.sizes) for each in targets)
        account.there = sum(each.there() for each in targets)
        account.to_copy = sum(sum(each.sizes.values()) for each in targets) - account.there
        yield 0
        for each in targets:
            for size in each.copy_packs():
                account.copied += size
                yield size
            account.damaged += each.damaged
        for each in targets:
            each.switch()
        for each in targets:
            each.clean()
        _remove_others(copies, {each.directory for each in caches})


def _remove_others(directory: Path, kept: set[Path]) -> None:
    """Remove the copies of caches that the store has no more."""
    with disk_errors(directory):
        for each in directory.iterdir() if directory.is_dir() else ():
            if each not in kept:
                (each / settings.FILE).unlink(missing_ok=True)  # first: half of a cache is none
                shutil.rmtree(each)

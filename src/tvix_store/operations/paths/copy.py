"""copy_paths: bring store paths, with all they refer to, from files on this machine into a store.

Contents are read in any order, several paths at a time, and hashed on the way. A path whose content is not as stated is not
recorded. Path infos are put in the order of the references. So a recorded path is complete with its closure, whatever stops a copy.
A copy that is repeated reads only paths that are not recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tvix_store.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    IncompleteError,
    InvalidError,
    NotFoundError,
    StoreError,
)
from tvix_store.model.directory import SizeRule
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.ingest.import_content import Progress, import_content
from tvix_store.operations.ingest.import_threads import ImportThreads
from tvix_store.operations.paths.check import proves_content_address
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.services.store import Store

JOBS = 4
"""Paths that are read at a time. Each holds up to some 50 MB, and most of them wait for the disk or a lock now and then."""

_OF_A_PATH = (ConflictError, CorruptError, DeniedError, IncompleteError, InvalidError, NotFoundError)
"""Errors that leave hope for other paths."""


class Status(Enum):
    """The outcome for a path."""

    COPIED = "copied"
    KNOWN = "known"
    FAILED = "failed"
    LEFT_OUT = "left out"
    """Its content is stored, but one of its references failed, or was left out."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The outcome for a path. `error` says why it is not recorded."""

    store_path: StorePath
    status: Status
    error: StoreError | None = None

    @property
    def recorded(self) -> bool:
        return self.error is None


async def copy_paths(
    store: Store,
    paths: Iterable[StatedPath],
    file: Callable[[StorePath], Path],
    *,
    jobs: int = JOBS,
    size_rule: SizeRule | None = None,
    progress: Progress | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy `paths`, whose contents are where `file` says. Yields the outcome of each path, references first.

    A path that the store has with the same NAR is not read, and new signatures are added to it. An error of one path keeps this
    path, and all that refer to it, from being recorded; the others are copied. `progress` gets numbers of paths and bytes of NARs.

    Raises:
        InvalidError: the references go round in a circle.
        ExhaustedError, UnavailableError, UnsupportedError: the store cannot take them.
    """
    copying = _Copying(store, file, jobs, size_rule, progress or (lambda paths, size: None))
    by_path = {each.store_path: each for each in paths}
    try:
        for path in _references_first(by_path):
            copying.start(by_path[path])
        for task in list(copying.tasks.values()):
            yield await task
    finally:
        await copying.stop()


def _references_first(paths: dict[StorePath, StatedPath]) -> list[StorePath]:
    graph = {path: {other for other in stated.references if other in paths and other != path} for path, stated in paths.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InvalidError(f"references go round in a circle: {' '.join(map(str, error.args[1]))}") from None


class _Copying:
    """The copies of all paths, each in a task that waits for those of its references."""

    def __init__(
        self, store: Store, file: Callable[[StorePath], Path], jobs: int, size_rule: SizeRule | None, progress: Progress
    ) -> None:
        self.tasks: dict[StorePath, asyncio.Task[Copied]] = {}
        self._store = store
        self._file = file
        self._idle: asyncio.LifoQueue[ImportThreads] = asyncio.LifoQueue()
        """Threads that have no path to read. There are as many as there may be jobs."""
        self._threads = [ImportThreads() for _ in range(jobs)]
        for threads in self._threads:
            self._idle.put_nowait(threads)
        self._size_rule = size_rule
        self._progress = progress

    def start(self, stated: StatedPath) -> None:
        self.tasks[stated.store_path] = asyncio.create_task(self._copy(stated))

    async def stop(self) -> None:
        """Leave nothing running, whatever happened."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for threads in self._threads:
            threads.stop()

    async def _copy(self, stated: StatedPath) -> Copied:
        path = stated.store_path
        try:
            threads = await self._idle.get()
            try:
                known = await self._store.path_infos.get(path.output_hash)
                path_info = self._merged(known, stated) if known else await self._read(stated, threads)
            finally:
                self._idle.put_nowait(threads)
            if path_info is known:
                return Copied(path, Status.KNOWN)
            if known is None:
                missing = await self._missing_reference(stated)
                if missing is not None:
                    return missing
            await self._store.path_infos.put(path_info)
        except _OF_A_PATH as error:
            return Copied(path, Status.FAILED, error)
        return Copied(path, Status.KNOWN if known else Status.COPIED)

    def _merged(self, known: PathInfo, stated: StatedPath) -> PathInfo:
        self._progress(1, stated.nar.size)
        if known.store_path != stated.store_path or known.nar != stated.nar:
            raise ConflictError(
                f"{stated.store_path} is in the store with NAR hash {_shown(known.nar)}, but Nix says {_shown(stated.nar)}; "
                "it is not overwritten"
            )
        return known.with_signatures(stated.signatures)

    async def _read(self, stated: StatedPath, threads: ImportThreads) -> PathInfo:
        """Store the content of a path, and check it against Nix's NAR hash and the content address."""
        path = stated.store_path
        counted = 0

        def count(_files: int, size: int) -> None:
            nonlocal counted
            counted += size
            self._progress(0, size)

        def check(nar: NarFacts) -> None:
            if nar != stated.nar:
                raise CorruptError(
                    f"{path} is not copied: its NAR hash is {_shown(nar)}, but Nix says {_shown(stated.nar)} "
                    "(nix-store --verify-path tells more)"
                )

        content = await import_content(
            self._store, self._file(path), size_rule=self._size_rule, check_nar=check, threads=threads, progress=count
        )
        self._progress(1, stated.nar.size - counted)
        path_info = stated.path_info(content.node)
        await proves_content_address(self._store, path_info)
        return path_info

    async def _missing_reference(self, stated: StatedPath) -> Copied | None:
        """Wait until all references are recorded. The outcome for the path if one cannot be, else None."""
        for reference in stated.references:
            if reference == stated.store_path:
                continue
            task = self.tasks.get(reference)
            if task is not None:
                # Shielded: it is not for one of its referrers to stop it.
                if not (await asyncio.shield(task)).recorded:
                    error = IncompleteError(f"{stated.store_path} is left out: it refers to {reference}, which is not copied")
                    return Copied(stated.store_path, Status.LEFT_OUT, error)
            elif await self._store.path_infos.get(reference.output_hash) is None:
                raise IncompleteError(
                    f"{stated.store_path} is not copied: it refers to {reference}, "
                    "which is neither in the store nor among the paths to copy"
                )
        return None


def _shown(nar: NarFacts) -> str:
    return f"{NixHash('sha256', nar.sha256)} ({nar.size} bytes)"

"""copy_files: bring store paths, with all they refer to, from files on this machine into a store.

Contents are hashed on the way. A path whose content is not as stated is not recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from tvix_store.model.directory import SizeRule
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.ingest.import_content import Progress, import_content
from tvix_store.operations.ingest.import_threads import ImportThreads
from tvix_store.operations.paths.check import proves_content_address
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.operations.paths.path_copies import Copied, PathCopies, check_nar
from tvix_store.services.store import Store

JOBS = 4
"""Paths that are read at a time. Each holds up to some 50 MB, and most of them wait for the disk or a lock now and then."""


async def copy_files(
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
    copies = _FileCopies(store, file, jobs, size_rule, progress or (lambda paths, size: None))
    try:
        async with aclosing(copies.run(paths)) as outcomes:
            async for each in outcomes:
                yield each
    finally:
        copies.close()


class _FileCopies(PathCopies[StatedPath, PathInfo]):
    def __init__(
        self, store: Store, file: Callable[[StorePath], Path], jobs: int, size_rule: SizeRule | None, progress: Progress
    ) -> None:
        super().__init__(store.path_infos, "Nix", jobs)
        self._store = store
        self._file = file
        self._idle: asyncio.LifoQueue[ImportThreads] = asyncio.LifoQueue()
        """Threads that have no path to read. There are as many as there may be jobs."""
        self._threads = [ImportThreads() for _ in range(jobs)]
        for threads in self._threads:
            self._idle.put_nowait(threads)
        self._size_rule = size_rule
        self._progress = progress

    def close(self) -> None:
        for threads in self._threads:
            threads.stop()

    async def merged(self, known: PathInfo, stated: StatedPath) -> PathInfo:
        self._progress(1, stated.nar.size)
        return known.with_signatures(stated.signatures)

    async def bring(self, stated: StatedPath) -> PathInfo:
        """Store the content of a path, and check it against Nix's NAR hash and the content address."""
        threads = self._idle.get_nowait()
        try:
            return await self._read(stated, threads)
        finally:
            self._idle.put_nowait(threads)

    async def _read(self, stated: StatedPath, threads: ImportThreads) -> PathInfo:
        """Store the content of a path, and check it against Nix's NAR hash and the content address."""
        path = stated.store_path
        counted = 0

        def count(_files: int, size: int) -> None:
            nonlocal counted
            counted += size
            self._progress(0, size)

        def check(nar: NarFacts) -> None:
            check_nar(path, nar, stated.nar, "Nix", " (nix-store --verify-path tells more)")

        content = await import_content(
            self._store, self._file(path), size_rule=self._size_rule, check_nar=check, threads=threads, progress=count
        )
        self._progress(1, stated.nar.size - counted)
        path_info = stated.path_info(content.node)
        await proves_content_address(self._store, path_info)
        return path_info

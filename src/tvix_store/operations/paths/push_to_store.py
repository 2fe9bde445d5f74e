"""push_to_store: bring store paths from files on this machine into a store elsewhere, in parts. What the store has is not sent.

Nothing is verified here: the store computes the NAR of each path before it records the path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

from tvix_store.errors import CorruptError, DeniedError, IncompleteError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.granular.account import Account
from tvix_store.operations.granular.copy_tree import TreeCopier
from tvix_store.operations.ingest.tree_files import ScannedTree, TreeFiles
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.operations.paths.path_copies import Copied, NothingTakenError, PathCopies
from tvix_store.services.store import Store

JOBS = 128
"""Paths whose contents are sent at a time. They share calls: one path alone waits for a round trip most of the time."""


async def push_to_store(
    store: Store,
    paths: Iterable[StatedPath],
    file: Callable[[StorePath], Path],
    *,
    elsewhere: Collection[StorePath] = (),
    jobs: int | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy `paths`, whose contents are where `file` says. Yields the outcome of each path, references first.

    A path that the store has with the same NAR is not read, and new signatures are added to it. An error of one path keeps this
    path, and all that refer to it, from being recorded; the others are copied. References that are `elsewhere` are not looked for
    here; the store may insist on them.

    Raises:
        InvalidError: the references go round in a circle.
        DeniedError: the store takes nothing from us.
        ExhaustedError, UnavailableError, UnsupportedError: the store cannot take them.
    """
    pushes = _Pushes(store, file, elsewhere, jobs or JOBS, account or Account())
    try:
        async with aclosing(pushes.run(paths)) as outcomes:
            async for each in outcomes:
                yield each
    finally:
        await pushes.close()


class _Pushes(PathCopies[StatedPath, PathInfo]):
    def __init__(
        self,
        store: Store,
        file: Callable[[StorePath], Path],
        elsewhere: Collection[StorePath],
        jobs: int,
        account: Account,
    ) -> None:
        super().__init__(store.path_infos, "Nix", jobs, elsewhere, store.many_path_infos)
        self._skipped = elsewhere
        self._store = store
        self._file = file
        self._account = account
        self._files = TreeFiles()
        self._trees = TreeCopier(self._files, store, account, "Nix's store")

    async def close(self) -> None:
        await self._trees.close()
        await self._files.close()

    async def merged(self, known: PathInfo, stated: StatedPath) -> PathInfo:
        self._account.logical += stated.nar.size
        self._account.moved(stated.nar.size)
        return known.with_signatures(stated.signatures)

    async def bring(self, stated: StatedPath) -> PathInfo:
        async with self._scanned(stated) as tree:
            path_info = stated.path_info(tree.node)
            await self._send(path_info, tree)
        self._account.logical += stated.nar.size
        return path_info

    async def record(self, record: PathInfo) -> None:
        try:
            await super().record(record)
        except IncompleteError:
            await self._check_references(record)
            # The store had a directory without all below it, or something there is damaged, and is forgotten now.
            async with self._scanned(record) as tree:
                await self._send(record, tree, thorough=True)
            await super().record(record)

    def _scanned(self, path: StatedPath | PathInfo) -> AbstractAsyncContextManager[ScannedTree]:
        return self._files.scanned(self._file(path.store_path), self._store.size_rule, path.nar.size)

    async def _check_references(self, record: PathInfo) -> None:
        """Raise IncompleteError where the store lacks a reference that was left out."""
        skipped = [each for each in record.references if each in self._skipped]
        there = await self._store.path_infos.existing([each.output_hash for each in skipped]) if skipped else {}
        for reference in skipped:
            if reference.output_hash not in there:
                raise IncompleteError(
                    f"{record.store_path} is not pushed: it refers to {reference}, which was left out, and which the cache cannot "
                    "get; name the upstream to the cache (--substituters), or push without --skip-upstream"
                )

    async def _send(self, path_info: PathInfo, tree: ScannedTree, *, thorough: bool = False) -> None:
        try:
            await self._trees.copy(tree.node, path_info.nar.size, path_info.store_path, given=tree.directories, thorough=thorough)
        except DeniedError as error:
            raise NothingTakenError(error) from error
        except CorruptError as error:
            raise CorruptError(f"{path_info.store_path} is not pushed: {error} (nix-store --verify-path tells more)") from error

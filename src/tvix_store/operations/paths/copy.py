"""copy_paths: bring store paths from one store into another, in parts. What the target has is not sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from tvix_store.errors import CorruptError, IncompleteError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.wanted import wanted_many
from tvix_store.operations.granular.account import Account
from tvix_store.operations.granular.copy_tree import TreeCopier
from tvix_store.operations.paths.path_copies import Copied, PathCopies, check_nar, stated_paths
from tvix_store.operations.paths.rewrite_sizes import directories_by_rule
from tvix_store.operations.trees.resolve import PathInStore, path_text
from tvix_store.services.store import Store, wanted_store

JOBS = 64
"""Paths whose contents are copied at a time. They share calls: one path alone waits for a round trip most of the time."""


async def copy_paths(
    source: Store,
    target: Store,
    paths: Iterable[PathInfo | PathInStore],
    *,
    jobs: int = JOBS,
    deltas: bool | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy `paths` from `source` to `target`. Yields the outcome of each, references first.

    A path is a path info of `source`, or a store path in any form that `named_path_infos` takes. What it refers to is not copied,
    unless it is named too.

    Nothing that the source says is believed. `target` computes the NAR of each path from the content that it has then. It should
    check what else it takes: see `config.verified`. A path that the target has with the same NAR is not looked at, and new
    signatures are added to it. An error of one path keeps this path, and all that refer to it, from being recorded; the others are
    copied.

    `deltas` says whether a file may be sent as the difference from the file at the same path in another version of the package. By
    default, it may where the link is slow.

    Raises:
        InvalidError: a path is no store path, the references go round in a circle, or the stores are for other store directories.
        NotFoundError: a path that is named is not in `source`.
        ExhaustedError, UnavailableError, UnsupportedError: the target cannot take them, or the source cannot give them.
    """
    wanted_store(source)
    wanted_store(target)
    if source.store_dir != target.store_dir:
        raise InvalidError(f"{source.name} holds paths of {source.store_dir}, and {target.name} those of {target.store_dir}")
    given = list(wanted_many(paths, "path infos or store paths, in an iterable"))
    stated = [each for each in given if isinstance(each, PathInfo)]
    stated += await named_path_infos(source, [each for each in given if not isinstance(each, PathInfo)])
    account = account or Account()
    trees = TreeCopier.between(source, target, account, deltas=deltas)
    copies = _StoreCopies(source, target, trees, jobs, account)
    try:
        async with aclosing(copies.run(stated)) as outcomes:
            async for each in outcomes:
                yield each
    finally:
        await trees.close()


async def named_path_infos(store: Store, names: Iterable[PathInStore], *, closure: bool = False) -> list[PathInfo]:
    """The path infos of the store paths that `names` name; with their `closure`, also of all they refer to, directly or not.

    Raises:
        InvalidError: a name is not a store path, its base name, or its hash.
        NotFoundError: a path is not in the store, or has another name there.
        ExhaustedError: the closure is too large.
    """

    wanted_store(store)

    async def ask(output_hashes: Sequence[bytes]) -> list[PathInfo]:
        return list((await store.path_infos.get_many(output_hashes)).values())

    named = list(map(path_text, wanted_many(names, "names of store paths, in an iterable")))
    return await stated_paths(ask, named, store_dir=store.store_dir, source=store.name, closure=closure)


class _StoreCopies(PathCopies[PathInfo, PathInfo]):
    def __init__(self, source: Store, target: Store, trees: TreeCopier, jobs: int, account: Account) -> None:
        super().__init__(target.path_infos, source.name or "the source", jobs, together=target.many_path_infos)
        self._store = target
        self._directories = source.directories
        self._trees = trees
        self._account = account

    async def merged(self, known: PathInfo, stated: PathInfo) -> PathInfo:
        self._account.logical += stated.nar.size
        self._account.moved(stated.nar.size)
        # Its own root node stays: the target may lack directories of another size rule.
        mine = replace(stated, node=known.node)
        return known if known.merged(mine) is known else mine

    async def bring(self, stated: PathInfo) -> PathInfo:
        given: dict[Digest, Directory] = {}
        if not self._store.takes_any_sizes and isinstance(stated.node, DirectoryNode):
            # The target refuses others. Only directories change: neither the NAR nor the store path has sizes.
            directories = await directories_by_rule(self._directories, stated.node, self._store.size_rule)
            given = {directory.digest: directory for directory in directories}
            stated = replace(stated, node=directories[-1].node(self._store.size_rule))
        try:
            await self._trees.copy(stated.node, stated.nar.size, stated.store_path, given=given)
            true = await self._at_target(stated)
        except IncompleteError:
            # The target had a directory without all below it, or something there is damaged, and is forgotten now.
            await self._trees.copy(stated.node, stated.nar.size, given=given, thorough=True)
            true = await self._at_target(stated)
        check_nar(stated.store_path, true, stated.nar, self._source)
        self._account.logical += stated.nar.size
        return stated

    async def _at_target(self, stated: PathInfo) -> NarFacts:
        """The facts of the NAR, computed from the content of the target.

        Raises:
            IncompleteError: a part is not there, or damaged.
        """
        try:
            return await self._store.nar.calculate(stated.node)
        except (NotFoundError, CorruptError) as error:
            raise IncompleteError(f"{stated.store_path} is not copied: {error}") from error

"""DeltaCopier: moves a file as the difference from another file that both stores have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from tvix_store.compression.delta import MAX_TARGET
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import CorruptError, ExhaustedError, IncompleteError, InvalidError, NotFoundError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, Node
from tvix_store.model.store_path import StorePath
from tvix_store.operations.granular.account import Account
from tvix_store.operations.granular.bases import Bases
from tvix_store.services.blobs import Chunk
from tvix_store.services.deltas import Deltas
from tvix_store.services.frames import Frame
from tvix_store.services.store import Store

_LEAST = 32 << 10
"""Bytes of stored chunks that must be missing: a delta takes two round trips, and reads both files."""
_WORTH = 2 / 3
"""The part of the missing chunks' bytes that a delta may have. A larger one is not worth its work."""
_AT_ONCE = 4
_FAST = 30e6
"""Bytes a second from which chunks are sent instead: a pair of Go releases takes 1 s of CPU more as deltas, and 35 MB less."""


class DeltaCopier:
    """Copies files of trees as deltas from `source` to `target`, where that pays.

    `rate` tells how many bytes of chunks are moved in a second; None while that is not known. On a fast link no deltas are made,
    unless they are `wanted`.
    """

    def __init__(
        self, source: Deltas, target: Deltas, bases: Bases, account: Account, rate: Callable[[], float | None], *, wanted: bool
    ) -> None:
        self._source = source
        self._target = target
        self._bases = bases
        self._account = account
        self._rate = rate
        self._wanted = wanted

    @classmethod
    def between(
        cls, source: Store, target: Store, account: Account, rate: Callable[[], float | None], *, wanted: bool | None
    ) -> Self | None:
        """None where deltas are not wanted, or one of the stores cannot work with them.

        If `wanted` is None, a link decides: there is none between two stores that find paths by their names, since both are here.
        """
        if wanted is False or source.deltas is None or target.deltas is None:
            return None
        if wanted is None and source.named_paths is not None and target.named_paths is not None:
            return None
        if target.named_paths is not None:
            bases = Bases(target, target.named_paths, source.path_infos)
        elif source.named_paths is not None:
            bases = Bases(source, source.named_paths, target.path_infos)
        else:
            return None
        return cls(source.deltas, target.deltas, bases, account, rate, wanted=wanted is True)

    async def copy(
        self,
        path: StorePath,
        root: Node,
        directories: Mapping[Digest, Directory],
        files: Sequence[tuple[FileNode, Sequence[Frame]]],
        lacking: Callable[[Sequence[Digest]], Awaitable[Sequence[bool]]],
    ) -> set[Digest]:
        """Copy those of `files`, each with its chunks, for which deltas pay. Return their digests; the others are to be copied.

        They stand below `root`, in `directories`. `lacking` tells which chunks the target lacks.

        Raises:
            CorruptError: a delta makes something else than it should.
        """
        candidates = [each for each in files if each[0].size <= MAX_TARGET and sum(chunk.stored for chunk in each[1]) >= _LEAST]
        if not candidates or not self._pays():
            return set()
        bases = await self._bases_of(path, root, directories)

        async def copied(file: FileNode, chunks: Sequence[Frame]) -> bool:
            base = bases.get(file.digest)
            if base is None or not self._pays():
                return False
            absent = await lacking([Digest(chunk.digest) for chunk in chunks])
            missing = {chunk.digest: chunk.stored for chunk, is_absent in zip(chunks, absent, strict=True) if is_absent}
            return await self._copied(base, Chunk(file.digest, file.size), sum(missing.values()))

        are_copied = await each_at_once(lambda each: copied(*each), candidates, _AT_ONCE)
        return {file.digest for (file, _), is_copied in zip(candidates, are_copied, strict=True) if is_copied}

    async def _bases_of(self, path: StorePath, root: Node, directories: Mapping[Digest, Directory]) -> Mapping[Digest, Digest]:
        """The bases of files by digest. There are none where the other version is damaged: the path does not need it."""
        try:
            other = await self._bases.other_version(path)
            return {} if other is None else await self._bases.of_files(root, directories, other)
        except (CorruptError, NotFoundError):
            return {}

    async def _copied(self, base: Digest, file: Chunk, missing: int) -> bool:
        if missing < _LEAST:
            return False
        try:
            delta = await self._source.make(base, file, int(missing * _WORTH))
            if delta is None:
                return False
            await self._target.apply(base, file, delta)
        except InvalidError as error:
            raise CorruptError(f"the source gives a wrong delta: {error}") from None
        except (CorruptError, IncompleteError, NotFoundError, ExhaustedError, UnavailableError):
            return False  # the base may be damaged; chunks may do, or tell better why not
        self._account.sent += len(delta)
        self._account.deltas += 1
        self._account.moved(file.size)
        return True

    def _pays(self) -> bool:
        if self._wanted:
            return True
        rate = self._rate()
        return rate is None or rate < _FAST

"""StoreCheck: whether all that store paths need is in the store, and undamaged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tvix_store.concurrency.cooperative import Yielder
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.names import show
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.paths.check import missing_references
from tvix_store.services.batches import parts
from tvix_store.services.blobs import BlobService, surely_missing
from tvix_store.services.store import Store

_AT_ONCE = 1000
"""Blobs that are asked about in one call."""
_OF_CONTENT = (CorruptError, InvalidError, NotFoundError)


@dataclass(frozen=True, slots=True)
class CheckedPath:
    """A store path, and what is wrong with it: a line each."""

    path_info: PathInfo
    faults: tuple[str, ...]


class StoreCheck:
    """Checks the paths of `store`, one after the other. What several paths share is looked at once, as long as it is sound.

    With `blobs`, all content is read through them: each chunk is held against its digest, and each NAR against its hash. Without
    them, the check sees that everything is there.
    """

    def __init__(self, store: Store, blobs: BlobService | None = None) -> None:
        self._store = store
        self._blobs = blobs
        self._yielder = Yielder()
        self._sound: set[bytes] = set()
        """Digests of directories with all below them, and of blobs, that are there: 100 bytes of memory each."""

    async def check(self, path_info: PathInfo) -> CheckedPath:
        """Look for faults in a path.

        Raises:
            UnavailableError: the store cannot be asked.
        """
        faults = [f"it refers to {each}, which is not in the store" for each in await missing_references(self._store, path_info)]
        faults += await self._missing(path_info.node)
        if self._blobs is not None and not faults:
            faults += await self._damage(path_info, self._blobs)
        return CheckedPath(path_info, tuple(faults))

    async def _missing(self, root: Node) -> list[str]:
        """What the root node reaches, and the store lacks or cannot read."""
        files, directories, faults = await self._walk(root, self._sound)
        for some in parts(list(files), _AT_ONCE):
            missing = await surely_missing(self._store.blobs, some)
            lacking_chunks = {} if missing else await self._missing_chunks(some)
            for digest in some:
                if digest in missing:
                    faults.append(_line(files[digest], NotFoundError("blob", digest)))
                elif digest in lacking_chunks:
                    faults.append(_line(files[digest], NotFoundError("chunk", lacking_chunks[digest])))
                else:
                    self._sound.add(digest.raw)
        if not faults:
            self._sound |= directories
        return faults

    async def _walk(self, root: Node, sound: Collection[bytes]) -> tuple[dict[Digest, bytes], set[bytes], list[str]]:
        """The files that a node reaches, by digest, each with where it stands; the digests of the directories; and a line for each
        directory that is missing or damaged. Digests that are `sound` are passed over.
        """
        files: dict[Digest, bytes] = {}
        directories: set[bytes] = set()
        faults: list[str] = []
        waiting: list[tuple[bytes, Node]] = [(b"", root)]
        while waiting:
            where, node = waiting.pop()
            if isinstance(node, FileNode) and node.digest.raw not in sound:
                files.setdefault(node.digest, where)
            elif isinstance(node, DirectoryNode) and node.digest.raw not in sound and node.digest.raw not in directories:
                directories.add(node.digest.raw)
                try:
                    directory = await self._store.directories.get(node.digest)
                    if directory is None:
                        raise NotFoundError("directory", node.digest)
                    waiting += ((where + b"/" + name, child) for name, child in directory.entries.items())
                except _OF_CONTENT as error:
                    faults.append(_line(where, error))
            await self._yielder.step()
        return files, directories, faults

    async def _missing_chunks(self, blobs: Sequence[Digest]) -> dict[Digest, Digest]:
        """Blobs that lack a chunk, and the chunk."""
        of: dict[Digest, Digest] = {}
        for blob in blobs:
            with suppress(*_OF_CONTENT):  # reading it tells
                stat = await self._store.blobs.stat(blob, chunks=True)
                of |= {chunk.digest: blob for chunk in (stat.chunks if stat else ())}
            await self._yielder.step()
        lacking: dict[Digest, Digest] = {}
        for some in parts(list(of), _AT_ONCE):
            lacking |= {of[chunk]: chunk for chunk in await surely_missing(self._store.blobs, some)}
        return lacking

    async def _damage(self, path_info: PathInfo, blobs: BlobService) -> list[str]:
        """The faults that reading shows. All are found, not only the first."""
        try:
            facts = await calculate_nar(blobs, self._store.directories.tree(path_info.node))
        except (*_OF_CONTENT, ExhaustedError) as error:
            return await self._damaged_files(path_info.node) or [str(error)]
        return [] if facts == path_info.nar else ["its NAR is not what its path info says"]

    async def _damaged_files(self, root: Node) -> list[str]:
        files, _, faults = await self._walk(root, ())
        for digest, where in files.items():
            try:
                async for _ in self._store.blobs.read(digest):
                    pass
            except _OF_CONTENT as error:
                faults.append(_line(where, error))
        return faults


def _line(where: bytes, error: Exception) -> str:
    return f"{show(where[1:])}: {error}" if where else str(error)

"""CachedDirectories: the directories of a far store, by way of a near one."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Sequence

from tvix_store.concurrency.closing import closing
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.errors import NotFoundError
from tvix_store.layers.cache.entries import DIRECTORY, of_directories, read_directory
from tvix_store.layers.cache.fills import Fills
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.services.directories import DirectoryService, DirectoryTree
from tvix_store.services.granular import Parts

_AT_ONCE = 512
"""Directories that are looked for at a time."""
_HELD = 1 << 20
"""Bytes of directories that are being put and are kept when far has them all; and
_AHEAD: bytes of directories that a reader of a whole tree has ahead."""
_AHEAD = 4 << 20


class CachedDirectories:
    """A DirectoryService over `far`, whose `parts` give out many directories at a time, where it has some."""

    def __init__(self, near: Fills, far: DirectoryService, parts: Parts | None) -> None:
        self._near = near
        self._far = far
        self._parts = parts
        self._share = SharedCalls(self._got)

    async def get(self, digest: Digest) -> Directory | None:
        (found,) = await self.get_some([digest])
        return found

    async def get_some(self, digests: Sequence[Digest]) -> list[Directory | None]:
        """As `get`, of some hundred directories."""
        return await self._share(digests)

    async def _got(self, digests: Sequence[Digest]) -> list[Directory | None]:
        kept = await self.known(digests)
        lacking = [digest for digest, found in zip(digests, kept, strict=True) if found is None]
        fetched = iter(await self._fetched(lacking)) if lacking else iter(())
        return [next(fetched) if found is None else found for found in kept]

    async def known(self, digests: Sequence[Digest]) -> list[Directory | None]:
        """Those directories that are near."""
        return await self._near.get(DIRECTORY, [digest.raw for digest in digests], read_directory)

    def keep(self, directories: Sequence[Directory]) -> None:
        """Keep directories that far has."""
        self._near.put(of_directories(directories))

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        """As `DirectoryService.get_recursive`. If the root is near, so is most of what is below, and the rest is fetched alone."""
        (root,) = await self.known([digest])
        if root is None:
            async with closing(self._far.get_recursive(digest)) as all_below:
                async for directory in all_below:
                    self.keep([directory])
                    yield directory
            return
        yield root
        waiting, seen = deque([root]), {digest}
        while waiting:
            wanted: list[Digest] = []
            while waiting and len(wanted) < _AT_ONCE:
                for _, child in waiting.popleft().directories():
                    if child.digest not in seen:
                        seen.add(child.digest)
                        wanted.append(child.digest)
            for child_digest, found in zip(wanted, await self.get_some(wanted), strict=True):
                if found is None:
                    raise NotFoundError("directory", child_digest)
                waiting.append(found)
                yield found

    def tree(self, root: Node) -> DirectoryTree:
        return CachedTree(self, self._far.tree(root))

    async def put(self, directories: AsyncIterable[Directory]) -> Digest:
        sent: list[Directory] = []
        size = 0

        async def passed() -> AsyncIterator[Directory]:
            nonlocal size
            async for directory in directories:
                if size < _HELD:
                    size += len(directory.encoded)
                    sent.append(directory)
                yield directory

        digest = await self._far.put(passed())
        self.keep(sent)
        return digest

    async def _fetched(self, digests: Sequence[Digest]) -> list[Directory | None]:
        found: list[Directory | None]
        if self._parts is not None and len(digests) > 1:
            try:
                found = [*await self._parts.get_directories(digests)]
            except NotFoundError:  # of one
                found = await each_at_once(self._far.get, digests)
        else:
            found = await each_at_once(self._far.get, digests)
        self.keep([each for each in found if each is not None])
        return found


class CachedTree:
    """A DirectoryTree over that of far, which may find directories by the root alone."""

    def __init__(self, directories: CachedDirectories, far: DirectoryTree) -> None:
        self._directories = directories
        self._far = far
        self._reads_all = False
        self._ahead: dict[Digest, Directory] = {}
        self._size = 0

    @property
    def root(self) -> Node:
        return self._far.root

    def expect_all(self) -> None:
        self._reads_all = True

    async def get(self, digest: Digest) -> Directory:
        found = self._ahead.pop(digest, None)
        if found is not None:
            self._size -= len(found.encoded)
        else:
            (found,) = await self._directories.known([digest])
        if found is None:
            if self._reads_all:
                self._far.expect_all()
            found = await self._far.get(digest)
            self._directories.keep([found])
        elif self._reads_all:
            await self._look_ahead(found)
        return found

    def below(self, node: Node) -> CachedTree:
        return CachedTree(self._directories, self._far.below(node))

    async def _look_ahead(self, directory: Directory) -> None:
        """Have what is near of the directories below, to spare a hop to a thread for each."""
        if self._size < _AHEAD:
            below = {child.digest for _, child in directory.directories()} - self._ahead.keys()
            for found in await self._directories.known(list(below)[:_AT_ONCE]):
                if found is not None:
                    self._ahead[found.digest] = found
                    self._size += len(found.encoded)

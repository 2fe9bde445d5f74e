"""The bases of deltas: for each file of a tree, the file at the same path in another version of the package."""

from __future__ import annotations

from collections.abc import Mapping

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.store_path import StorePath
from tvix_store.services.directories import DirectoryService, parse
from tvix_store.services.named_paths import NamedPaths
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store

_TRIED = 8
"""Versions of which the other store is asked whether it has them."""


class Bases:
    """Finds bases that both stores have. `near` is one of them, which finds paths by their names."""

    def __init__(self, near: Store, named_paths: NamedPaths, far: PathInfoService) -> None:
        self._near = near
        self._named_paths = named_paths
        self._far = far

    async def other_version(self, path: StorePath) -> Node | None:
        """The root node of the nearest version of a package that both stores have."""
        versions = list(await self._named_paths.versions(path))[:_TRIED]
        if not versions:
            return None
        there = await self._far.existing([each.output_hash for each in versions])
        for version in versions:
            if there.get(version.output_hash) == version:
                found = await self._near.path_infos.get(version.output_hash)
                if found is not None:
                    return found.node
        return None

    async def of_files(self, root: Node, directories: Mapping[Digest, Directory], other: Node) -> dict[Digest, Digest]:
        """For the digests of files below `root` that stand in `directories`: the digest of the file that is at the same path in
        `other`.
        """
        bases: dict[Digest, Digest] = {}
        level: dict[tuple[Node, Node], None] = {(root, other): None}  # a pair stands at many places of a tree, but counts once
        while level:
            below: dict[tuple[Node, Node], None] = {}
            for new, old in level:
                if isinstance(new, FileNode) and isinstance(old, FileNode) and new.digest != old.digest:
                    bases.setdefault(new.digest, old.digest)
                if isinstance(new, DirectoryNode) and isinstance(old, DirectoryNode) and new.digest in directories:
                    entries = await _entries(self._near.directories, old.digest)
                    common = directories[new.digest].entries.items()
                    below |= dict.fromkeys((node, entries[name]) for name, node in common if name in entries)
            level = below
        return bases


async def _entries(directories: DirectoryService, digest: Digest) -> Mapping[bytes, Node]:
    directory = await directories.get(digest)
    if directory is None:
        return {}
    await parse(directory)
    return directory.entries

"""Bases: the file at the same path in another version."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.backends.memory import open_store
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode, Node
from tvix_store.model.store_path import StorePath
from tvix_store.operations.granular.bases import Bases
from tvix_store.testing.content import missing


class _Others:
    async def versions(self, path: StorePath) -> Sequence[StorePath]:
        return []


class _Directories:
    """Gives out what it is told, and counts."""

    def __init__(self, directories: dict[Digest, Directory]) -> None:
        self._directories = directories
        self.asked = 0

    async def get(self, digest: Digest) -> Directory | None:
        self.asked += 1
        return self._directories[digest]


def doubling(seed: str, depth: int) -> tuple[Node, dict[Digest, Directory]]:
    """A tree in which each directory stands twice in the one above: a few directories, 2 ** depth files."""
    node: Node = FileNode(missing(seed), 1)
    directories = {}
    for _ in range(depth):
        directory = Directory({b"a": node, b"b": node})
        directories[directory.digest] = directory
        node = directory.node()
    return node, directories


async def test_directories_that_stand_at_many_places_are_looked_at_once() -> None:
    new, its_directories = doubling("new", 18)
    old, directories = doubling("old", 18)
    counted = _Directories(directories)
    async with await open_store() as store:
        near = store.with_services(directories=counted)  # type: ignore[arg-type]
        bases = Bases(near, _Others(), store.path_infos)
        assert await bases.of_files(new, its_directories, old) == {missing("new"): missing("old")}
    assert counted.asked == 18

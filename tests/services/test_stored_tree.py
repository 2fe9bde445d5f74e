"""Directories that are read one by one, or all at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tvix_store.backends.memory.directories import MemoryDirectories
from tvix_store.errors import NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, SymlinkNode
from tvix_store.services import stored_tree
from tvix_store.services.stored_tree import StoredTree
from tvix_store.testing.content import missing, nested, stream


class Watched(MemoryDirectories):
    """Tells what was read: alone, and by recursive reads."""

    def __init__(self) -> None:
        super().__init__()
        self.alone: list[Digest] = []
        self.together: list[Digest] = []
        self.recursive = 0

    async def get(self, digest: Digest) -> Directory | None:
        self.alone.append(digest)
        return await super().get(digest)

    async def get_recursive(self, digest: Digest) -> AsyncIterator[Directory]:
        self.recursive += 1
        async for directory in super().get_recursive(digest):
            self.together.append(directory.digest)
            yield directory


@pytest.fixture
async def chain() -> list[Directory]:
    """A directory, the one in it, and so on; the root first."""
    return nested(20)[::-1]


@pytest.fixture
async def directories(chain: list[Directory]) -> Watched:
    directories = Watched()
    await directories.put(stream(chain[::-1]))
    return directories


async def test_directories_are_read_one_by_one(directories: Watched, chain: list[Directory]) -> None:
    tree = StoredTree(directories, chain[0].node())
    wanted = [each.digest for each in chain[:3]]
    assert [(await tree.get(digest)).digest for digest in wanted] == wanted
    assert (directories.alone, directories.recursive) == (wanted, 0)


async def test_a_tree_of_which_all_is_expected_is_read_once(directories: Watched, chain: list[Directory]) -> None:
    tree = StoredTree(directories, chain[0].node())
    for directory in (*chain, *chain[::-1]):
        tree.expect_all()
        assert await tree.get(directory.digest) == directory
    assert (directories.alone, directories.recursive) == ([], 1)


async def test_no_more_is_read_than_was_asked_for(directories: Watched, chain: list[Directory]) -> None:
    tree = StoredTree(directories, chain[0].node())
    tree.expect_all()
    assert not directories.recursive
    for directory in (chain[4], chain[2]):
        await tree.get(directory.digest)
    assert directories.together == [each.digest for each in chain[:5]]


async def test_a_part_of_a_tree_is_read_from_its_own_root(directories: Watched, chain: list[Directory]) -> None:
    part = StoredTree(directories, chain[0].node()).below(chain[15].node())
    part.expect_all()
    await part.get(chain[-1].digest)
    assert directories.together == [each.digest for each in chain[15:]]


async def test_of_a_large_tree_a_part_is_kept_and_the_rest_is_read_one_by_one(
    directories: Watched, chain: list[Directory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_tree, "_KEPT", 3 * len(chain[0].encoded))
    tree = StoredTree(directories, chain[0].node())
    tree.expect_all()
    assert [await tree.get(each.digest) for each in chain] == chain
    assert 3 <= len(directories.together) < 6
    assert directories.alone == [each.digest for each in chain[len(directories.together) :]]


async def test_what_is_not_there_is_told(directories: Watched, chain: list[Directory]) -> None:
    for root in (chain[0].node(), DirectoryNode(missing(), 1)):
        for expects_all in (False, True):
            tree = StoredTree(directories, root)
            if expects_all:
                tree.expect_all()
            with pytest.raises(NotFoundError):
                await tree.get(missing())


async def test_a_root_that_is_no_directory_has_none_to_read(directories: Watched) -> None:
    tree = StoredTree(directories, SymlinkNode(b"target"))
    tree.expect_all()
    with pytest.raises(NotFoundError):
        await tree.get(missing())
    assert directories.recursive == 0

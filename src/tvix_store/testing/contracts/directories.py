"""The contract of DirectoryService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.directory_graph import RootToLeaves
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.services.directories import DirectoryService
from tvix_store.testing.content import diamond, missing, stream

EMPTY_DIRECTORY = Directory({})


def leaf(name: str) -> Directory:
    """A directory without directories, made unique by `name`."""
    return Directory({name.encode(): SymlinkNode(b"target")})


def parent(rule: SizeRule = SizeRule.DOCUMENTED, /, **children: Directory) -> Directory:
    return Directory({name.encode(): child.node(rule) for name, child in children.items()})


async def all_below(directories: DirectoryService, root: Digest) -> list[Directory]:
    return [directory async for directory in directories.get_recursive(root)]


@pytest.mark.asyncio
class DirectoryServiceContract:
    """Subclasses give a fixture `directories`: a service that may hold other directories, but none of these."""

    async def refused(self, directories: DirectoryService, graph: Sequence[Directory]) -> None:
        """Putting `graph` fails, and stores nothing of it."""
        before = [await directories.get(directory.digest) for directory in graph]
        with pytest.raises(InvalidError):
            await directories.put(stream(graph))
        assert [await directories.get(directory.digest) for directory in graph] == before

    async def test_a_directory_that_was_not_put_is_absent(self, directories: DirectoryService) -> None:
        assert await directories.get(missing()) is None
        with pytest.raises(NotFoundError) as caught:
            await all_below(directories, missing())
        assert str(missing()) in str(caught.value)

    async def test_the_empty_directory_is_a_directory(self, directories: DirectoryService) -> None:
        assert await directories.put(stream([EMPTY_DIRECTORY])) == EMPTY
        assert await directories.get(EMPTY) == EMPTY_DIRECTORY
        assert await all_below(directories, EMPTY) == [EMPTY_DIRECTORY]

    @pytest.mark.parametrize("expects_all", [False, True])
    async def test_a_tree_reads_the_directories_below_its_root(self, directories: DirectoryService, expects_all: bool) -> None:
        low = leaf("low")
        middle = parent(low=low)
        root = parent(middle=middle, low=low)
        await directories.put(stream([low, middle, root]))
        tree = directories.tree(root.node())
        part = tree.below(middle.node())
        assert (tree.root, part.root) == (root.node(), middle.node())
        if expects_all:
            tree.expect_all()
            part.expect_all()
        assert [await tree.get(each.digest) for each in (low, root, middle, low)] == [low, root, middle, low]
        assert [await part.get(each.digest) for each in (middle, low)] == [middle, low]
        with pytest.raises(NotFoundError):
            await tree.get(missing())
        absent = directories.tree(DirectoryNode(missing(), 1))
        with pytest.raises(NotFoundError):
            await absent.get(missing())
        assert directories.tree(SymlinkNode(b"x")).root == SymlinkNode(b"x")

    async def test_all_kinds_of_children_come_back_as_they_were(self, directories: DirectoryService) -> None:
        children: dict[bytes, Node] = {
            b"\xff not UTF-8": FileNode(missing("a"), 2**40),
            b"a directory": EMPTY_DIRECTORY.node(),
            b"empty": FileNode(EMPTY, 0),
            b"program": FileNode(missing("b"), 12, executable=True),
            b"link": SymlinkNode(b"../\xfe somewhere"),
            b"x" * 255: SymlinkNode(b"t" * 4095),
        }
        directory = Directory(children)
        root = await directories.put(stream([EMPTY_DIRECTORY, directory]))
        got = await directories.get(root)
        assert got is not None
        assert got.encoded == directory.encoded
        assert dict(got.entries) == children
        assert list(got.entries) == sorted(children)

    async def test_a_graph_is_put_whole(self, directories: DirectoryService) -> None:
        graph = diamond()
        assert await directories.put(stream(graph)) == graph[-1].digest
        assert [await directories.get(directory.digest) for directory in graph] == graph

    async def test_a_graph_is_got_from_the_root_each_directory_once(self, directories: DirectoryService) -> None:
        graph = diamond()
        root = await directories.put(stream(graph))
        got = await all_below(directories, root)
        order = RootToLeaves(root)
        for directory in got:
            order.add(directory)
        order.finish()
        assert sorted(got, key=lambda each: each.encoded) == sorted(graph, key=lambda each: each.encoded)

    async def test_a_directory_may_be_sent_twice_or_be_known_already(self, directories: DirectoryService) -> None:
        low, high = leaf("twice"), parent(low=leaf("twice"))
        await directories.put(stream([low]))
        assert await directories.put(stream([low, low, high])) == high.digest
        assert await directories.put(stream([low, high])) == high.digest
        assert await all_below(directories, high.digest) == [high, low]

    async def test_no_directory_at_all_is_refused(self, directories: DirectoryService) -> None:
        await self.refused(directories, [])

    async def test_a_directory_naming_an_unsent_child_is_refused(self, directories: DirectoryService) -> None:
        await self.refused(directories, [leaf("other"), parent(unsent=leaf("unsent"))])

    async def test_a_directory_naming_a_child_sent_in_an_earlier_call_is_refused(self, directories: DirectoryService) -> None:
        await directories.put(stream([leaf("earlier")]))
        await self.refused(directories, [parent(child=leaf("earlier"))])

    async def test_a_root_sent_before_its_children_is_refused(self, directories: DirectoryService) -> None:
        low = leaf("before")
        await self.refused(directories, [parent(low=low), low])

    async def test_a_directory_that_the_root_does_not_reach_is_refused(self, directories: DirectoryService) -> None:
        low = leaf("reached")
        await self.refused(directories, [leaf("stray"), low, parent(low=low)])

    async def test_a_wrong_size_is_refused(self, directories: DirectoryService) -> None:
        low = leaf("wrong size")
        for size in (0, 3, 2**64 - 10):
            await self.refused(directories, [low, Directory({b"low": DirectoryNode(low.digest, size)})])

    async def test_a_refused_graph_leaves_nothing_even_of_its_good_part(self, directories: DirectoryService) -> None:
        low = leaf("good part")
        await self.refused(directories, [low, parent(low=low), parent(low=low, unsent=leaf("not sent"))])
        assert await directories.get(low.digest) is None

    async def test_a_put_whose_input_fails_leaves_nothing(self, directories: DirectoryService) -> None:
        low = leaf("failing input")

        async def failing() -> AsyncIterator[Directory]:
            yield low
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await directories.put(failing())
        assert await directories.get(low.digest) is None

    @pytest.mark.parametrize("rule", SizeRule)
    async def test_graphs_of_either_size_rule_are_kept_as_they_are(self, directories: DirectoryService, rule: SizeRule) -> None:
        low = leaf("ruled")
        middle = parent(rule, low=low)
        graph = [low, middle, parent(rule, low=low, middle=middle)]
        root = await directories.put(stream(graph))
        assert {each.encoded for each in await all_below(directories, root)} == {each.encoded for each in graph}

    async def test_sizes_between_the_two_rules_are_kept_as_they_are(self, directories: DirectoryService) -> None:
        low = Directory({b"a": SymlinkNode(b"x"), b"b": SymlinkNode(b"x"), b"c": SymlinkNode(b"x")})
        for size in range(low.size(), low.size(SizeRule.SNIX) + 1):
            root = Directory({b"low": DirectoryNode(low.digest, size)})
            await directories.put(stream([low, root]))
            assert await directories.get(root.digest) == root
            assert [each async for each in directories.get_recursive(root.digest)] == [root, low]

    async def test_the_two_size_rules_may_meet_in_one_graph(self, directories: DirectoryService) -> None:
        low = leaf("mixed")
        documented, snix = parent(low=low), parent(SizeRule.SNIX, low=low)
        root = Directory({b"documented": documented.node(SizeRule.SNIX), b"snix": snix.node(), b"low": low.node()})
        assert await directories.put(stream([low, documented, snix, root])) == root.digest
        assert len(await all_below(directories, root.digest)) == 4

    async def test_a_deep_graph_is_put_and_got(self, directories: DirectoryService) -> None:
        graph = [leaf("deep")]
        for _ in range(2000):
            graph.append(parent(deeper=graph[-1]))
        root = await directories.put(stream(graph))
        assert await all_below(directories, root) == graph[::-1]

    async def test_a_wide_directory_is_put_and_got(self, directories: DirectoryService) -> None:
        lows = [leaf(f"wide {n}") for n in range(500)]
        files: dict[bytes, Node] = {b"file %d" % n: FileNode(missing(str(n)), n) for n in range(5000)}
        wide = Directory({**files, **{b"low %d" % n: low.node() for n, low in enumerate(lows)}})
        root = await directories.put(stream([*lows, wide]))
        assert await directories.get(root) == wide
        assert len(await all_below(directories, root)) == 501

    async def test_graphs_may_be_put_at_once(self, directories: DirectoryService) -> None:
        shared = leaf("shared")
        roots = [parent(shared=shared, own=leaf(f"own {n % 5}")) for n in range(20)]
        puts = (directories.put(stream([shared, leaf(f"own {n % 5}"), root])) for n, root in enumerate(roots))
        assert await asyncio.gather(*puts) == [root.digest for root in roots]
        for root in roots:
            assert len(await all_below(directories, root.digest)) == 3

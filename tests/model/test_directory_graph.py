"""The two orders of directory graphs, against a naive oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tvix_store.errors import InvalidError
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.directory_graph import LeavesToRoot, RootToLeaves
from tvix_store.model.nodes import DirectoryNode, FileNode, SymlinkNode
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree

LEAF = Directory({b"file": FileNode(EMPTY, 0)})
OTHER_LEAF = Directory({b"other": FileNode(EMPTY, 0)})
ROOT = Directory({b"leaf": LEAF.node()})
WRONG = Directory({b"leaf": DirectoryNode(LEAF.digest, 7)})


def put(directories: Sequence[Directory]) -> Digest:
    graph = LeavesToRoot()
    for directory in directories:
        graph.add(directory)
    return graph.finish()


def get(root: Digest, directories: Sequence[Directory]) -> None:
    graph = RootToLeaves(root)
    for directory in directories:
        graph.add(directory)
    graph.finish()


def accepts_leaves_to_root(directories: Sequence[Directory]) -> bool:
    """What the rule says, as plainly as it can be said."""
    if not directories:
        return False
    for position, directory in enumerate(directories):
        sent = {earlier.digest: earlier for earlier in directories[:position]}
        if not edges_fit(directory, sent):
            return False
    return reachable(directories[-1], directories) == {directory.digest for directory in directories}


def accepts_root_to_leaves(root: Digest, directories: Sequence[Directory]) -> bool:
    if not directories or directories[0].digest != root:
        return False
    digests = [directory.digest for directory in directories]
    if len(set(digests)) != len(digests):
        return False
    for position, digest in enumerate(digests[1:], 1):
        if not any(child.digest == digest for parent in directories[:position] for _, child in parent.directories()):
            return False
    sent = {directory.digest: directory for directory in directories}
    return all(edges_fit(directory, sent) for directory in directories)


def edges_fit(directory: Directory, sent: dict[Digest, Directory]) -> bool:
    return all(
        child.digest in sent and child.size in [sent[child.digest].size(rule) for rule in SizeRule]
        for _, child in directory.directories()
    )


def reachable(root: Directory, directories: Sequence[Directory]) -> set[Digest]:
    by_digest = {directory.digest: directory for directory in directories}
    found: set[Digest] = set()
    waiting = [root.digest]
    while waiting:
        digest = waiting.pop()
        if digest not in found and digest in by_digest:
            found.add(digest)
            waiting += [child.digest for _, child in by_digest[digest].directories()]
    return found


def graph_of(tree: Tree, rule: SizeRule = SizeRule.DOCUMENTED) -> list[Directory]:
    directories = list(trees.castore(tree, rule).directories)
    assume(directories)
    return directories


@given(strategies.trees(), strategies.size_rules())
def test_a_tree_is_accepted_from_leaves_to_root(tree: Tree, rule: SizeRule) -> None:
    directories = graph_of(tree, rule)
    assert put(directories) == directories[-1].digest


@given(strategies.trees(), strategies.size_rules())
def test_a_tree_is_accepted_from_root_to_leaves(tree: Tree, rule: SizeRule) -> None:
    directories = graph_of(tree, rule)[::-1]
    get(directories[0].digest, directories)


@given(st.data())
def test_both_orders_are_judged_as_the_oracle_does(data: st.DataObject) -> None:
    """Directories of a few trees and of both rules, some with wrong sizes, in any order, some missing, some twice."""
    pool = [LEAF, OTHER_LEAF, ROOT, WRONG]
    for tree in data.draw(st.lists(strategies.trees(8), min_size=1, max_size=2)):
        pool += trees.castore(tree).directories
        pool += trees.castore(tree, SizeRule.SNIX).directories
    start = data.draw(st.integers(0, len(pool)))
    some = st.lists(st.sampled_from(pool), max_size=8) | st.permutations(pool[start:]) | st.just(pool[start:])
    stream = data.draw(some)
    if data.draw(st.booleans()):
        stream = stream[::-1]
    assert accepted(lambda: put(stream)) == accepts_leaves_to_root(stream)
    root = data.draw(st.sampled_from(stream or pool)).digest
    assert accepted(lambda: get(root, stream)) == accepts_root_to_leaves(root, stream)


def accepted(check: Callable[[], object]) -> bool:
    try:
        check()
    except InvalidError:
        return False
    return True


@st.composite
def diamonds(draw: st.DrawFn) -> list[Directory]:
    """From leaves to root, graphs in which directories are shared, and each edge's size is by either rule or wrong."""
    layers = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    sent: list[Directory] = [LEAF]
    for layer, width in enumerate(layers):
        below = list(sent)
        for number in range(width):
            chosen = draw(st.lists(st.sampled_from(below), min_size=1, max_size=3))
            entries = {}
            for position, child in enumerate(chosen):
                wrong = DirectoryNode(child.digest, child.size() + 1000)
                node = draw(st.sampled_from((child.node(), child.node(), child.node(SizeRule.SNIX), wrong)))
                entries[b"%d-%d-%d" % (layer, number, position)] = node
            sent.append(Directory(entries))
    return sent


@given(diamonds(), st.randoms(use_true_random=False))
def test_graphs_with_shared_directories_are_judged_as_the_oracle_does(directories: list[Directory], random: Random) -> None:
    assert accepted(lambda: put(directories)) == accepts_leaves_to_root(directories)
    root = directories[-1]
    below = reachable(root, directories)
    stream = [directory for directory in reversed(directories) if directory.digest in below]
    random.shuffle(stream)
    stream.sort(key=lambda directory: directory.digest != root.digest)
    assert accepted(lambda: get(root.digest, stream)) == accepts_root_to_leaves(root.digest, stream)


def test_a_directory_naming_an_unsent_child_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"refers to .* as 'leaf', which was not sent before it"):
        put([ROOT])


def test_a_wrong_size_is_refused_from_leaves_to_root() -> None:
    with pytest.raises(InvalidError, match=r"states size 7 for its child 'leaf', which is 1 \(or up to 2, by the snix rule\)"):
        put([LEAF, WRONG])


def test_a_stray_directory_is_refused() -> None:
    with pytest.raises(InvalidError, match=f"{OTHER_LEAF.digest} is not reachable from the last one sent"):
        put([LEAF, OTHER_LEAF, ROOT])


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(InvalidError, match="no directory was sent"):
        put([])


def test_a_directory_may_be_put_twice() -> None:
    assert put([LEAF, LEAF, ROOT]) == ROOT.digest


def test_a_root_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(InvalidError, match="nothing before it refers to it"):
        get(LEAF.digest, [ROOT])


def test_a_directory_got_twice_is_refused() -> None:
    with pytest.raises(InvalidError, match="was sent twice"):
        get(ROOT.digest, [ROOT, LEAF, LEAF])


def test_a_wrong_size_is_refused_from_root_to_leaves() -> None:
    with pytest.raises(InvalidError, match=r"has size 1 \(or up to 2, by the snix rule\), but its parent states 7"):
        get(WRONG.digest, [WRONG, LEAF])


def test_a_wrong_size_is_refused_where_the_child_came_before_the_parent() -> None:
    root = Directory({b"leaf": LEAF.node(), b"wrong": WRONG.node()})
    with pytest.raises(InvalidError, match=r"has size 1 \(or up to 2, by the snix rule\), but its parent states 7"):
        get(root.digest, [root, LEAF, WRONG])


def test_every_size_between_the_two_rules_is_taken_and_none_beyond_them() -> None:
    """As snix does since 2026; one version of it counted files once and directories twice."""
    low = Directory({b"1": SymlinkNode(b"x"), b"2": SymlinkNode(b"x"), b"3": Directory({}).node()})
    empty = Directory({})
    for size in range(9):
        root = Directory({b"low": DirectoryNode(low.digest, size)})
        if 3 <= size <= 6:
            assert put([empty, low, root]) == root.digest
            get(root.digest, [root, low, empty])
        else:
            with pytest.raises(InvalidError, match=f"states size {size} for its child 'low', which is 3"):
                put([empty, low, root])
            with pytest.raises(InvalidError, match=f"but its parent states {size}"):
                get(root.digest, [root, low, empty])


def test_a_missing_directory_is_refused() -> None:
    with pytest.raises(InvalidError, match=f"{LEAF.digest} is referred to, but was not sent"):
        get(ROOT.digest, [ROOT])

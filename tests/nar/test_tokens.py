"""The pieces of a NAR, put together by hand."""

from __future__ import annotations

from hypothesis import given

from tvix_store.model.nodes import SymlinkNode
from tvix_store.nar import tokens
from tvix_store.testing import strategies, trees
from tvix_store.testing.trees import Tree, TreeFile


def joined(tree: Tree) -> bytes:
    """The node of `tree` without a machine."""
    match tree:
        case TreeFile(contents, executable):
            return tokens.file_start(len(contents), executable) + contents + tokens.file_end(len(contents))
        case SymlinkNode(target):
            return tokens.symlink(target)
        case _:
            entries = [tokens.entry_start(name) + joined(tree[name]) + tokens.ENTRY_END for name in sorted(tree)]
            return b"".join([tokens.DIRECTORY_START, *entries, tokens.DIRECTORY_END])


def size(tree: Tree) -> int:
    """How many bytes the node of `tree` takes, without making them."""
    match tree:
        case TreeFile(contents, executable):
            return tokens.file_size(len(contents), executable)
        case SymlinkNode(target):
            return tokens.symlink_size(target)
        case _:
            return tokens.DIRECTORY_SIZE + sum(tokens.entry_size(name) + size(child) for name, child in tree.items())


@given(strategies.trees())
def test_joined_tokens_are_what_the_writer_writes(tree: Tree) -> None:
    assert tokens.MAGIC + joined(tree) == trees.nar(tree)


@given(strategies.trees())
def test_sizes_are_known_without_the_bytes(tree: Tree) -> None:
    assert len(tokens.MAGIC) + size(tree) == len(trees.nar(tree))


def test_a_nar_is_spelled_like_this() -> None:
    words = (b"nix-archive-1", b"(", b"type", b"directory", b"entry", b"(", b"name", b"run", b"node", b"(", b"type")
    more = (b"regular", b"executable", b"", b"contents", b"#!", b")", b")", b")")
    spelled = b"".join(len(word).to_bytes(8, "little") + word + bytes(-len(word) % 8) for word in words + more)
    assert trees.nar({b"run": TreeFile(b"#!", executable=True)}) == spelled

"""The contract of NarService."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory, SizeRule
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import NarFacts
from tvix_store.nar import tokens
from tvix_store.services.blobs import SMALL_BLOB
from tvix_store.services.store import Store
from tvix_store.testing.content import file_nar, missing, noise, put_file, put_tree, stream
from tvix_store.testing.trees import Tree, TreeFile


def known(size: int, sha256: str) -> NarFacts:
    return NarFacts(size, base64.b64decode(sha256))


HELLO = b"Hello World!"
NAR_OF_HELLO = known(128, "A+f2O+MLBl14vPYV9Uc1Rf2062mqQW9DSVtOBc37gEA=")
NAR_OF_LINK = known(128, "dWdxqKF5caKPz57tSPloPsLtfEhGsObjCoSi87EfSsw=")
NAR_OF_TREE = known(1216, "XIGy34JyoEENefjBaZoglZvlgCRXOZKzRHl5FIp7L2Q=")
"""From `nix-store --dump` 2.8: of a file with HELLO, of a symlink to `to/somewhere`, and of TREE."""


TREE: Tree = {
    b"bin": {b"hello": TreeFile(HELLO, executable=True)},
    b"share": {b"empty": {}, b"greet": SymlinkNode(b"../bin/hello"), b"nothing": TreeFile(b"")},
}


@pytest.mark.asyncio
class NarServiceContract:
    """Subclasses give a fixture `store`, which may hold other things, but none of these."""

    async def test_the_nar_of_a_file_is_as_nix_makes_it(self, store: Store) -> None:
        assert await store.nar.calculate(await put_file(store.blobs, HELLO)) == NAR_OF_HELLO

    async def test_the_nar_of_a_file_of_any_size_is_right(self, store: Store) -> None:
        for size in (0, 1, 8, 4095, SMALL_BLOB, SMALL_BLOB + 1, 3_000_001):
            data = noise(size, f"nar {size}")
            for executable in (False, True):
                node = await put_file(store.blobs, data, executable=executable)
                assert await store.nar.calculate(node) == file_nar(data, executable=executable), (size, executable)

    async def test_the_nar_of_a_symlink_is_as_nix_makes_it(self, store: Store) -> None:
        assert await store.nar.calculate(SymlinkNode(b"to/somewhere")) == NAR_OF_LINK

    async def test_the_nar_of_a_tree_is_as_nix_makes_it(self, store: Store) -> None:
        assert await store.nar.calculate(await put_tree(store, TREE)) == NAR_OF_TREE

    async def test_the_size_rule_of_a_tree_does_not_show_in_its_nar(self, store: Store) -> None:
        inner = Directory({b"empty": Directory({}).node()})
        roots = [Directory({b"inner": inner.node(rule)}) for rule in SizeRule]
        facts = []
        for rule, root in zip(SizeRule, roots, strict=True):
            await store.directories.put(stream([Directory({}), inner, root]))
            facts.append(await store.nar.calculate(root.node(rule)))
        assert facts[0] == facts[1]

    async def test_the_nar_of_a_wide_tree_of_small_and_large_files_is_right(self, store: Store) -> None:
        contents = [noise(997 * n % 9000 if n % 200 else 300_000 + n, f"wide {n}") for n in range(1000)]
        await store.blobs.put_many([data for data in contents if len(data) <= SMALL_BLOB])
        for data in contents:
            if len(data) > SMALL_BLOB:
                await store.blobs.put(stream([data]))
        files = {b"%05d" % n: FileNode(Digest.of(data), len(data)) for n, data in enumerate(contents)}
        root = Directory(files)
        await store.directories.put(stream([root]))
        nar = [tokens.MAGIC, tokens.DIRECTORY_START]
        for name, data in zip(files, contents, strict=True):
            nar += [
                tokens.entry_start(name),
                tokens.file_start(len(data), False),
                data,
                tokens.file_end(len(data)),
                tokens.ENTRY_END,
            ]
        expected = b"".join([*nar, tokens.DIRECTORY_END])
        assert await store.nar.calculate(root.node()) == NarFacts(len(expected), hashlib.sha256(expected).digest())

    async def test_asking_again_gives_the_same_answer(self, store: Store) -> None:
        node = await put_tree(store, TREE)
        assert await store.nar.calculate(node) == await store.nar.calculate(node) == NAR_OF_TREE

    async def test_it_may_be_asked_many_times_at_once(self, store: Store) -> None:
        node = await put_tree(store, TREE)
        assert set(await asyncio.gather(*(store.nar.calculate(node) for _ in range(8)))) == {NAR_OF_TREE}

    async def test_facts_that_were_recorded_are_given_out(self, store: Store) -> None:
        node = await put_tree(store, TREE)
        await store.remember_nar(node, NAR_OF_TREE, store.begin_nar())
        assert await store.nar.calculate(node) == NAR_OF_TREE

    @pytest.mark.parametrize("size", [64, SMALL_BLOB + 1])
    async def test_a_missing_blob_is_named(self, store: Store, size: int) -> None:
        root = Directory({b"file": FileNode(missing("blob"), size)})
        await store.directories.put(stream([root]))
        for node in (FileNode(missing("blob"), size), root.node()):
            with pytest.raises(NotFoundError) as caught:
                await store.nar.calculate(node)
            assert str(missing("blob")) in str(caught.value)

    async def test_a_missing_directory_is_named(self, store: Store) -> None:
        with pytest.raises(NotFoundError) as caught:
            await store.nar.calculate(DirectoryNode(missing("directory"), 3))
        assert str(missing("directory")) in str(caught.value)

    async def test_a_file_that_states_a_wrong_size_is_refused(self, store: Store) -> None:
        for size in (1000, SMALL_BLOB, SMALL_BLOB + 1, 1_500_000):
            digest = (await put_file(store.blobs, noise(size, f"wrong size {size}"))).digest
            for stated in (0, size - 1, size + 1, 2 * size):
                root = Directory({b"file": FileNode(digest, stated)})
                await store.directories.put(stream([root]))
                nodes: tuple[Node, ...] = (FileNode(digest, stated), root.node())
                for node in nodes:
                    with pytest.raises(InvalidError) as caught:
                        await store.nar.calculate(node)
                    assert str(digest) in str(caught.value)

    async def test_a_root_that_states_a_wrong_size_is_refused(self, store: Store) -> None:
        node = await put_tree(store, TREE)
        assert isinstance(node, DirectoryNode)
        directory = await store.directories.get(node.digest)
        assert directory is not None
        for size in (0, directory.size() - 1, directory.size(SizeRule.SNIX) + 1):
            with pytest.raises(InvalidError):
                await store.nar.calculate(DirectoryNode(node.digest, size))

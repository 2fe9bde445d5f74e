"""A path info is taken only if it is true."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.errors import CorruptError, IncompleteError, InvalidError, UnavailableError
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.layers.verifying import VerifyingPathInfos
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import DirectoryNode, FileNode, Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import missing, put_file, put_tree, stream
from tvix_store.testing.contracts import StoreContract
from tvix_store.testing.faults import Fault, FaultyBlobs, failing
from tvix_store.testing.trees import TreeFile

PATH = StorePath(bytes(20), "tree")
TREE = {b"bin": {b"hello": TreeFile(b"hello", executable=True)}}


def verifying(store: Store) -> Store:
    return replace(store, path_infos=VerifyingPathInfos(store.path_infos, store.nar))


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store() as memory:
        yield verifying(memory)


class TestVerifyingStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with await open_store() as memory:
            yield verifying(memory)


async def true_path_info(store: Store) -> PathInfo:
    node = await put_tree(store, TREE)
    return PathInfo(PATH, node, await store.nar.calculate(node))


async def refused(store: Store, info: PathInfo, error: type[Exception]) -> str:
    """The message with which `info` is refused; nothing is stored."""
    with pytest.raises(error) as caught:
        await store.path_infos.put(info)
    assert await store.path_infos.get(PATH.output_hash) is None
    return str(caught.value)


async def test_a_true_path_info_is_stored(store: Store) -> None:
    info = await true_path_info(store)
    assert await store.path_infos.put(info) == info
    assert await store.path_infos.get(PATH.output_hash) == info


async def test_a_wrong_nar_size_is_refused_with_both_sizes(store: Store) -> None:
    info = await true_path_info(store)
    message = await refused(store, replace(info, nar=NarFacts(info.nar.size + 8, info.nar.sha256)), InvalidError)
    assert f"nar_size is {info.nar.size + 8}" in message
    assert f"{info.nar.size} bytes" in message


async def test_a_wrong_nar_hash_is_refused_with_both_hashes(store: Store) -> None:
    info = await true_path_info(store)
    message = await refused(store, replace(info, nar=NarFacts(info.nar.size, bytes(32))), InvalidError)
    assert info.nar.sha256.hex() in message
    assert bytes(32).hex() in message


async def test_the_facts_of_another_node_are_refused(store: Store) -> None:
    info = await true_path_info(store)
    assert "nar_size" in await refused(store, replace(info, node=await put_file(store.blobs, b"other")), InvalidError)


@pytest.mark.parametrize("node", [FileNode(missing("root"), 5), DirectoryNode(missing("root"), 5)])
async def test_a_missing_root_is_named(store: Store, node: Node) -> None:
    info = await true_path_info(store)
    assert str(missing("root")) in await refused(store, replace(info, node=node), IncompleteError)


async def test_a_missing_blob_below_the_root_is_named(store: Store) -> None:
    info = await true_path_info(store)
    root = Directory({b"file": FileNode(missing("below"), 5)})
    await store.directories.put(stream([root]))
    assert str(missing("below")) in await refused(store, replace(info, node=root.node()), IncompleteError)


@pytest.mark.parametrize("error", [UnavailableError("away"), CorruptError("damaged")])
async def test_a_path_info_that_cannot_be_verified_now_is_refused(store: Store, error: Exception) -> None:
    info = await true_path_info(store)

    def nar_over(fault: Fault) -> RememberingNarService:
        return RememberingNarService(FaultyBlobs(store.blobs, fault), store.directories, Forgetful())

    path_infos = VerifyingPathInfos(store.path_infos, nar_over(failing(error)))
    assert await refused(replace(store, path_infos=path_infos), info, type(error)) == str(error)


class Forgetful:
    """A cache that keeps nothing."""

    async def get(self, node: Node) -> None:
        return None

    def begin(self) -> int:
        return 0

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        return None

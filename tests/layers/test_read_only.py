"""A read-only store gives what it holds, and takes nothing."""

from __future__ import annotations

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.config import read_only
from tvix_store.errors import DeniedError
from tvix_store.model.directory import Directory
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, missing, put_tree, stream
from tvix_store.testing.trees import Tree, TreeFile

TREE: Tree = {b"a": TreeFile(b"content"), b"d": {b"b": TreeFile(b"more")}}


@pytest.fixture
async def filled() -> tuple[Store, PathInfo]:
    store = await open_store()
    node = await put_tree(store, TREE)
    info = PathInfo(StorePath(b"o" * 20, "path"), node, await store.nar.calculate(node))
    await store.path_infos.put(info)
    return store, info


async def test_everything_is_read_through_it(filled: tuple[Store, PathInfo]) -> None:
    store, info = filled
    reader = read_only(store)
    assert await reader.path_infos.get(info.store_path.output_hash) == info
    assert [each async for each in reader.path_infos.list()] == [info]
    assert await reader.nar.calculate(info.node) == info.nar
    directories = [each async for each in reader.directories.get_recursive(info.node.digest)]  # type: ignore[union-attr]
    assert await reader.directories.get(directories[1].digest) == directories[1]
    file = directories[0].entries[b"a"].digest  # type: ignore[union-attr]
    assert await collect(reader.blobs.read(file, 1)) == b"ontent"
    assert await reader.blobs.get_many([file]) == [b"content"]
    assert await reader.blobs.missing([file, missing()]) == {missing()}
    assert await reader.blobs.stat(file) == await store.blobs.stat(file)


async def test_nothing_is_written_through_it(filled: tuple[Store, PathInfo]) -> None:
    store, info = filled
    reader = read_only(store)
    with pytest.raises(DeniedError, match="read-only"):
        await reader.blobs.put(stream([b"x"]))
    with pytest.raises(DeniedError, match="read-only"):
        await reader.blobs.put_many([b"x"])
    with pytest.raises(DeniedError, match="read-only"):
        await reader.directories.put(stream([Directory({})]))
    with pytest.raises(DeniedError, match="read-only"):
        await reader.path_infos.put(info)

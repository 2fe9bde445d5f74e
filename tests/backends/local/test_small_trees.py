"""A small tree that is put in one go is what the services would have made of it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tvix_store.backends.local import open_store
from tvix_store.backends.local.pack_writer import PackWriter
from tvix_store.errors import ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.small_trees import SmallTree
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise

TEXT = b"a text that compresses well, " * 2000
CUT = noise(200_000, "cut into several chunks")
FILES = {b"cut": CUT, b"empty": b"", b"text": TEXT, b"twin": TEXT}
NAR = NarFacts(1234, b"n" * 32)
RECORDS = {b"one": b"1", b"two": b"2"}


def tree(files: dict[bytes, bytes]) -> SmallTree:
    inner = Directory({name: FileNode(Digest.of(content), len(content)) for name, content in files.items()})
    outer = Directory({b"inner": inner.node()})
    return SmallTree(list(files.values()), [inner, outer], outer.node())


async def put(store: Store, files: dict[bytes, bytes]) -> SmallTree:
    assert store.small_trees is not None
    small = tree(files)
    await store.small_trees.put(small, NAR, RECORDS)
    return small


async def is_there(store: Store) -> None:
    assert store.records is not None
    assert await store.blobs.get_many([Digest.of(content) for content in FILES.values()]) == list(FILES.values())
    small = tree(FILES)
    [outer, inner] = [each async for each in store.directories.get_recursive(small.node.digest)]  # type: ignore[union-attr]
    assert [outer, inner] == list(reversed(small.directories))
    assert {key: await store.records.get(key) for key in RECORDS} == RECORDS
    await collect(render_nar(store.blobs, store.directories, small.node))


async def test_all_of_it_is_there(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        small = await put(store, FILES)
        await is_there(store)
        assert await store.nar.calculate(small.node) == NAR
        await put(store, FILES)  # and again


async def test_it_outlives_the_index(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store, FILES)
    shutil.rmtree(tmp_path / "store" / "index")
    async with await open_store(tmp_path / "store") as store:
        await is_there(store)


@pytest.mark.parametrize("works", [0, 1], ids=["contents", "records"])
async def test_what_cannot_be_written_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: int) -> None:
    append = PackWriter.append
    left = works

    def full(self: PackWriter, records: list[object]) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise ExhaustedError("the disk is full")
        return append(self, records)  # type: ignore[arg-type]

    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        with monkeypatch.context() as patched:
            patched.setattr(PackWriter, "append", full)
            with pytest.raises(ExhaustedError):
                await put(store, FILES)
        assert [await store.records.get(key) for key in RECORDS] == [None, None]
        with suppress(NotFoundError):  # contents may be left that nothing refers to
            assert await store.nar.calculate(tree(FILES).node) != NAR
        await put(store, FILES)
        await is_there(store)

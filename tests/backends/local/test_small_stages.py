"""A small tree that is staged is stored in one go, and is what the services would have made of it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.backends.local.committer_watch import fill_disk, watch_requests
from tvix_store.backends.local import open_store
from tvix_store.errors import ExhaustedError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts
from tvix_store.operations.nars.render import render_nar
from tvix_store.services.staging import StagedNar
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream
from tvix_store.testing.contracts.staging import begun

TEXT = b"a text that compresses well, " * 1000
CUT = noise(200_000, "cut into several chunks")
FILES = {b"cut": CUT, b"empty": b"", b"text": TEXT, b"twin": TEXT}
NAR = NarFacts(1234, b"n" * 32)
RECORDS = {b"one": b"1", b"two": b"2"}


INNER = Directory({name: FileNode(Digest.of(content), len(content)) for name, content in FILES.items()})
OUTER = Directory({b"inner": INNER.node()})


async def put(store: Store) -> None:
    async with begun(store) as stage:
        assert await stage.blobs.put_many(list(FILES.values())) == [Digest.of(content) for content in FILES.values()]
        await stage.directories.put(stream([INNER, OUTER]))
        await stage.accept(StagedNar(OUTER.node(), NAR), RECORDS)


async def is_there(store: Store) -> None:
    assert store.records is not None
    assert await store.blobs.get_many([Digest.of(content) for content in FILES.values()]) == list(FILES.values())
    assert [each async for each in store.directories.get_recursive(OUTER.digest)] == [OUTER, INNER]
    assert {key: await store.records.get(key) for key in RECORDS} == RECORDS
    await collect(render_nar(store.blobs, store.directories.tree(OUTER.node())))


async def test_all_of_it_is_there(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store)
        await is_there(store)
        assert await store.nar.calculate(OUTER.node()) == NAR
        await put(store)  # and again


async def test_it_is_one_request_to_the_committer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await open_store(tmp_path / "store") as store:
        asked = watch_requests(monkeypatch)
        await put(store)
        assert len(asked) == 1


async def test_it_outlives_the_index(tmp_path: Path) -> None:
    async with await open_store(tmp_path / "store") as store:
        await put(store)
    shutil.rmtree(tmp_path / "store" / "index")
    async with await open_store(tmp_path / "store") as store:
        await is_there(store)


@pytest.mark.parametrize("works", [0, 1], ids=["contents", "records"])
async def test_what_cannot_be_written_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: int) -> None:
    async with await open_store(tmp_path / "store") as store:
        assert store.records is not None
        with monkeypatch.context() as patched:
            fill_disk(patched, after=works)
            with pytest.raises(ExhaustedError):
                await put(store)
        assert [await store.records.get(key) for key in RECORDS] == [None, None]
        with suppress(NotFoundError):  # contents may be left that nothing refers to
            assert await store.nar.calculate(OUTER.node()) != NAR
        await put(store)
        await is_there(store)

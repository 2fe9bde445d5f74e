"""A blob is put while its chunk list, and its chunks, are condemned or dropped: it is whole then, or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.backends.local.collected_history import store_of_long_lists
from tests.backends.local.raw_content import RawContent
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage
from tvix_store.backends.local.blobs import LocalBlobs
from tvix_store.backends.local.collection.collector import Collector
from tvix_store.backends.local.collection.mark import Mark
from tvix_store.backends.local.collection.roots import mark_roots
from tvix_store.backends.local.collection.watch import Watch
from tvix_store.backends.local.contents import Content
from tvix_store.backends.local.engine import Engine
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, pieces


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_of_long_lists(tmp_path / "store") as store:
        yield store


class Pausing:
    """A Sink that calls back before something is put, which makes a blob visible."""

    def __init__(self, engine: Engine, before: Callable[[], None]) -> None:
        self.unknown, self.holds = engine.committer.unknown, engine.committer.holds
        self.write_contents = engine.committer.write_contents
        self._engine, self._before = engine, before

    def put_contents(self, contents: Sequence[Content]) -> Future[Any]:
        self._before()
        return self._engine.committer.put_contents(contents)


def run(engine: Engine, times: int) -> Callable[[], None]:
    def runs() -> None:
        for _ in range(times):
            Collector(engine, 0, Watch(), lambda: 1e9).run()

    return runs


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_blob_whose_list_is_condemned_while_it_is_put_is_whole_or_refused(store: Store, times: int, is_there: bool) -> None:
    """All segments of its list but the first are there when it is condemned, or dropped."""
    engine, content = engine_of(store), noise(60_000, "in between")
    if is_there:
        await store.blobs.put(pieces(content, 10_000))
    put = LocalBlobs(engine, Pausing(engine, run(engine, times))).put
    try:
        blob = await put(pieces(content, 10_000))
    except UnavailableError:
        assert times == 2
        blob = Digest.of(content)
        assert await store.blobs.missing([blob]) == {blob}
    else:
        assert await store.blobs.missing([blob]) == set()
        assert await collect(store.blobs.read(blob)) == content
    assert RawContent(engine).lists_without_chunks() == []
    await store.blobs.put(pieces(content, 10_000))
    assert await collect(store.blobs.read(blob)) == content
    await collect_garbage(store, GRACE)
    assert RawContent(engine).lists_without_chunks() == []


async def test_a_run_between_two_segments_leaves_no_torn_list(store: Store) -> None:
    """The later segments of a list were there when the mark began, and the first one was not."""
    engine, content = engine_of(store), noise(60_000, "in between")
    marked: list[Mark] = []

    def begin() -> None:
        mark = Mark(engine.index, engine.reader, Watch())
        mark_roots([engine], mark)
        marked.append(mark)

    await store.blobs.put_many([b"so that the pack is named"])
    blob = await LocalBlobs(engine, Pausing(engine, begin)).put(pieces(content, 10_000))
    own = Collector(engine, 0, Watch(), lambda: 1e9)
    own._condemn(marked[0])
    run(engine, 2)()
    assert RawContent(engine).lists_without_chunks() == []
    if await store.blobs.missing([blob]) == set():
        assert await collect(store.blobs.read(blob)) == content

"""Chunk lists of several segments, and of lists that cannot be read, in a collection."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, collect_garbage, is_whole, put_path, remove
from tvix_store.backends.local import chunk_lists, open_store, taking_back
from tvix_store.backends.local.chunk_lists import Segment
from tvix_store.backends.local.collection.steps import Condemn
from tvix_store.backends.local.contents import Content, Written
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.records import Kind
from tvix_store.errors import UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, stream

LARGE = noise(4_000_000, "large")


def condemn(engine: Engine, some: list[Written]) -> None:
    engine.committer.submit(Condemn(some)).result()


async def put_large(store: Store) -> tuple[Digest, list[Written]]:
    """A blob, and the segments of its chunk list."""
    digest = await store.blobs.put(stream([LARGE]))
    segments = list(engine_of(store).index.all_contents(Kind.CHUNK_LIST))
    assert len(segments) > 1
    return digest, segments


async def test_a_list_that_is_put_while_it_is_condemned_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_lists, "SEGMENT_CHUNKS", 8)
    async with await open_store(tmp_path / "store") as store:
        digest, segments = await put_large(store)
        condemn(engine_of(store), segments[:1])
        await store.blobs.put(stream([LARGE]))
        condemn(engine_of(store), segments[1:])
        assert await collect(store.blobs.read(digest)) == LARGE


@pytest.mark.parametrize("is_dropped", [False, True])
async def test_the_rest_of_a_list_may_be_condemned_while_its_beginning_is_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dropped: bool
) -> None:
    monkeypatch.setattr(chunk_lists, "SEGMENT_CHUNKS", 8)
    async with await open_store(tmp_path / "store") as store:
        digest, segments = await put_large(store)
        engine = engine_of(store)
        beginning = Content(Kind.CHUNK_LIST, segments[0].key, engine.reader.read_checked(segments[0].place), len(LARGE))
        condemn(engine, segments)
        if is_dropped:
            with engine.index.writing() as txn:
                engine.index.drop_all_condemned(txn)
            with pytest.raises(UnavailableError, match="put it again"):
                engine.committer.put_contents([beginning]).result()
            assert await store.blobs.missing([digest]) == {digest}
        else:
            engine.committer.put_contents([beginning]).result()
            assert await collect(store.blobs.read(digest)) == LARGE


async def test_a_list_that_cannot_be_rescued_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk does not give it for a moment."""
    async with await open_store(tmp_path / "store") as store:
        await put_path(store, "kept", {b"file": b"kept"})
        needed = await put_path(store, "needed", {b"file": noise(1_000_000, "needed")})
        await remove(store, needed)
        await collect_garbage(store, GRACE)
        await store.path_infos.put(needed)  # so that only the run itself takes its content back
        assert not engine_of(store).index.wanted_back

        def fails(_: bytes) -> Segment:
            raise UnavailableError("the disk fails")

        with monkeypatch.context() as patched:
            patched.setattr(taking_back, "parse_segment", fails)
            with pytest.raises(UnavailableError, match="nothing is collected"):
                await collect_garbage(store, GRACE, later=GRACE + 10)
        assert await is_whole(store, needed)

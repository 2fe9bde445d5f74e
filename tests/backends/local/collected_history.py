"""A short history of a store that is collected again and again, and what must be there at each moment of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.backends.local.raw_content import RawContent
from tests.backends.local.test_checkpoint import engine_of
from tests.backends.local.test_collection import GRACE, TREE, Files, collect_garbage, put_path, remove
from tvix_store.backends.local import blob_writer, chunk_lists, open_store, settings
from tvix_store.backends.local.collection import collector, rewriting
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.engine import Engine
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store
from tvix_store.testing.content import noise
from tvix_store.testing.contracts.path_infos import path

CHUNK_AVERAGE, PACK_SIZE = 4096, 65_536
SHARED: Files = {b"shared": noise(15_000, "shared"), b"link to": {b"small": b"small", b"large": noise(9_000, "also shared")}}


class Known:
    """The paths that are there, as whoever put them was told, and those that are gone, as whoever removed them was told."""

    def __init__(self) -> None:
        self.there: dict[bytes, PathInfo] = {}
        self.gone: set[bytes] = set()

    async def put(self, store: Store, name: str, files: Files) -> PathInfo:
        self.gone.discard(path(name).output_hash)
        info = await put_path(store, name, files)
        self.there[info.store_path.output_hash] = info
        return info

    async def remove(self, store: Store, *infos: PathInfo) -> None:
        for info in infos:
            del self.there[info.store_path.output_hash]
        await remove(store, *infos)
        self.gone |= {info.store_path.output_hash for info in infos}

    def copy(self) -> Known:
        """As it is now; what is just put or removed is neither there nor gone."""
        copy = Known()
        copy.there, copy.gone = dict(self.there), set(self.gone)
        return copy

    def still(self, now: Known) -> Known:
        """What was so, and is so now."""
        still = Known()
        still.there = {key: info for key, info in self.there.items() if key in now.there}
        still.gone = self.gone & now.gone
        return still

    def look(self, engine: Engine) -> None:
        """See that all is as it is known."""
        for output_hash, info in self.there.items():
            assert engine.index.path_info(output_hash) == info.encoded, f"{info.store_path} is lost"
        raw = RawContent(engine)
        assert raw.is_whole(*(info.node for info in self.there.values()))
        assert raw.lists_without_chunks() == []
        for output_hash in self.gone:
            assert engine.index.path_info(output_hash) is None, "a removed path is there again"


def own(name: str, size: int = 30_000) -> Files:
    return {**SHARED, b"own": noise(size, name)}


async def small_packs(directory: Path, durability: Callable[[Path], Durability] = Durability) -> Store:
    """A store of many packs, and many chunks."""
    return await open_store(directory, chunk_average=CHUNK_AVERAGE, pack_size=PACK_SIZE, durability=durability)


async def fill(store: Store, known: Known) -> None:
    """Paths that stay, paths that were removed, and packs with much of both."""
    stay = [await known.put(store, f"stays-{n}", own(f"stays {n}")) for n in range(3)]
    go = [await known.put(store, f"goes-{n}", own(f"goes {n}", 60_000)) for n in range(4)]
    await known.put(store, "other", own("other"))
    await known.remove(store, *go, stay[0])


async def history(store: Store, known: Known) -> None:
    """Content is condemned, found again, put again and dropped; packs are rewritten."""
    await fill(store, known)
    await collect_garbage(store, GRACE)
    await known.put(store, "goes-1", own("goes 1", 60_000))
    await known.put(store, "new", own("goes 2", 60_000))
    await collect_garbage(store, GRACE, later=2 * GRACE)
    await collect_garbage(store, GRACE, later=4 * GRACE)
    await known.remove(store, known.there[next(iter(known.there))])
    await known.put(store, "last", own("last"))
    await collect_garbage(store, later=6 * GRACE)
    assert known.there
    assert known.gone


@contextmanager
def small_steps() -> Iterator[None]:
    """Let packs be small, chunk lists have many segments, and collections many steps."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (chunk_lists, "SEGMENT_CHUNKS", 2),
            (blob_writer, "SEGMENT_CHUNKS", 2),
            (blob_writer, "_SEGMENTS", 1),
            (collector, "_AT_ONCE", 8),
            (rewriting, "_COPIED_AT_ONCE", 6),
            (rewriting, "_LEAST_WASTE", 2000),
            (rewriting, "_REST", 0.0),
            (settings, "MIN_PACK_SIZE", 1000),
        ):
            patch.setattr(module, name, value)
        yield


def looked_at(directory: Path, known: Known, durability: Callable[[Path], Durability] = Durability) -> None:
    """Open a store, and see that all is there; beside a store of this process."""
    engine = Engine(directory, {}, 0, durability(directory))
    try:
        known.look(engine)
    finally:
        engine._close()


def has_remains(store: Store) -> bool:
    """Whether the index names packs that are over."""
    index = engine_of(store).index
    with index.reading() as txn:
        return 0 in index.committed_packs(txn).values()


@asynccontextmanager
async def store_of_long_lists(directory: Path) -> AsyncIterator[Store]:
    """A store whose chunk lists have many segments, with a path in it."""
    with small_steps():
        async with await open_store(directory, chunk_average=CHUNK_AVERAGE) as store:
            await put_path(store, "kept", TREE)
            yield store

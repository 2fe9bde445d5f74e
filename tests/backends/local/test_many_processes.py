"""Several processes use one store at once: each sees what the others were told is stored, and equal content is stored once."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path

from tvix_store.backends.local import open_store
from tvix_store.model.digest import Digest
from tvix_store.testing.content import collect, noise, stream

PROCESSES = 4
BLOBS = 40


def _contents(process: int) -> list[bytes]:
    own = [noise(20_000 + n, f"process {process} blob {n}") for n in range(BLOBS)]
    shared = [noise(300_000, f"shared {n}") for n in range(BLOBS // 4)]
    return own + shared


async def _write(directory: Path, process: int) -> None:
    async with await open_store(directory) as store:
        await asyncio.gather(*(store.blobs.put(stream([data])) for data in _contents(process)))


def _writer(directory: Path, process: int, told: multiprocessing.queues.Queue[int]) -> None:
    asyncio.run(_write(directory, process))
    told.put(process)


def test_writers_and_readers_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    writers = [spawn.Process(target=_writer, args=(tmp_path / "store", n, told)) for n in range(PROCESSES)]
    for writer in writers:
        writer.start()

    async def read() -> None:
        async with await open_store(tmp_path / "store") as store:
            for _ in writers:
                process = await asyncio.to_thread(told.get, timeout=60)
                for data in _contents(process):
                    assert await collect(store.blobs.read(Digest.of(data))) == data
            assert store.statistics is not None
            stats = await store.statistics.stats()
            distinct = {data for n in range(PROCESSES) for data in _contents(n)}
            assert stats.unique_bytes == sum(map(len, distinct))

    asyncio.run(read())
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0


def test_a_directory_becomes_one_store_however_many_make_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    makers = [spawn.Process(target=_writer, args=(tmp_path / "new", 0, told)) for _ in range(PROCESSES)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
        assert maker.exitcode == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["checkpoint", "index", "lock", "packs", "settings.json"]

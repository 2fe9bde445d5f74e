"""How a database grows: `python -m benchmarks.postgresql` puts path infos, and measures lookups and puts as they become many.

It starts a PostgreSQL of its own, as the tests do, with its defaults for durability. `--sizes 10000,100000` says at how many path
infos to measure. Each refers to ten others, as those of Nixpkgs do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types

from tests.postgresql import Server
from tvix_store.backends.postgresql import open_offer
from tvix_store.backends.postgresql.hexes import hexes
from tvix_store.backends.postgresql.path_infos import GET, PUT
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.services.path_infos import PathInfoService
from tvix_store.testing.content import noise

REFERENCES = 10
AT_ONCE = 10
SAMPLE = 1000
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on", "shared_buffers": "128MB"}


def path_info(number: int) -> PathInfo:
    """The path info with a number: it refers to some with lower numbers."""
    choose = random.Random(number)
    references = {choose.randrange(number) for _ in range(REFERENCES)} if number else set()
    return PathInfo(_path(number), SymlinkNode(b"x" * 40), NarFacts(number, noise(32, f"{number}")), tuple(map(_path, references)))


def _path(number: int) -> StorePath:
    return StorePath(noise(20, f"path {number}"), f"package-{number % 997}-1.{number}")


def _number(path: StorePath) -> int:
    return int(path.name.rpartition(".")[2])


async def measure(sizes: Sequence[int]) -> None:
    server = Server(**_DURABLE)
    try:
        settings = server.settings()
        offer = await open_offer(settings)
        connection = await asyncpg.connect(settings.dsn, server_settings={"search_path": settings.schema})
        assert offer.path_infos is not None
        there = 0
        for size in sizes:
            await each_at_once(_putting(offer.path_infos), range(there, size), AT_ONCE)
            await connection.execute("ANALYZE")  # as the server does by itself, sooner or later
            await _measure_at(offer.path_infos, connection, size, server)
            there = size + 2 * SAMPLE
        await connection.close()
        await offer.close()
    finally:
        server.remove()


async def _measure_at(path_infos: PathInfoService, connection: Any, size: int, server: Server) -> None:
    choose = random.Random(size)
    some = [_path(choose.randrange(size)).output_hash for _ in range(SAMPLE)]
    absent = [noise(20, f"absent {number}") for number in range(SAMPLE)]
    put = _putting(path_infos, requires_below=size)

    async def one_by_one(call: Callable[[Any], Awaitable[object]], items: Iterable[object]) -> None:
        for each in items:
            await call(each)

    print(f"{size} path infos, {server.size() >> 20} MiB")
    await _timed("get, one by one", one_by_one(path_infos.get, some))
    await _timed("get of what is not there", one_by_one(path_infos.get, absent))
    await _timed("get_many, together", path_infos.get_many(some))
    await _timed("existing, together", path_infos.existing([*some, *absent]))
    await _timed("put, one by one", one_by_one(put, range(size, size + SAMPLE)))
    await _timed("put, ten at once", each_at_once(put, range(size + SAMPLE, size + 2 * SAMPLE), AT_ONCE))
    await _timed("put again, one by one", one_by_one(put, range(size, size + SAMPLE)))
    print(f"  {'pages that a get touches':30} {await _pages(connection, GET, some[0]):8}")
    new = path_info(size + 2 * SAMPLE)
    references = hexes(_path(number).output_hash for number in range(REFERENCES))
    row = new.store_path.output_hash, new.store_path.name, "package/", new.nar.size, new.encoded, references, references, REFERENCES
    print(f"  {'pages that a put touches':30} {await _pages(connection, PUT, *row):8}")


async def _pages(connection: Any, statement: str, *args: object) -> int:
    """Pages of 8 KiB that the server looks at for a statement, which is undone."""
    transaction = connection.transaction()
    await transaction.start()
    for _ in range(2):  # the first time, it looks at its catalogue too
        plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *args))[0]["Plan"]
    await transaction.rollback()
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _putting(path_infos: PathInfoService, requires_below: int = 0) -> Callable[[int], Awaitable[object]]:
    """Puts the path info with a number, which requires its references with lower numbers than that."""

    async def put(number: int) -> None:
        info = path_info(number)
        await path_infos.put(info, requires=[each for each in info.references if _number(each) < requires_below])

    return put


async def _timed(what: str, work: Awaitable[object]) -> None:
    began = time.perf_counter()
    await work
    print(f"  {what:30} {(time.perf_counter() - began) / SAMPLE * 1e6:8.0f} µs each", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000")
    asyncio.run(measure([int(size) for size in parser.parse_args().sizes.split(",")]))

"""A bucket on a real server of S3 in both layouts: an import, and what a front end reads that knows nothing of the bucket yet."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.bench import TVIX_STORE, Bench, Contestant, output, timed
from benchmarks.figures import MILLISECONDS, SECONDS, Row, Series, Target
from benchmarks.link import running_link
from tests.backends.objectstore.versitygw import Versitygw, versitygw
from tvix_store.backends.objectstore.address import BucketAddress
from tvix_store.config import open_store
from tvix_store.model.address import Address
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.planner import is_worth_a_plan
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.trees.lookup import lookup
from tvix_store.services.store import Store

LAYOUTS = ("packed", "snix")
_SMALL = "a file of 64 KiB"
_RANGE = 8 << 20
_AT_ONCE = 16

_Read: TypeAlias = Callable[[Store, PathInfo], AsyncIterator[bytes]]


def measure(bench: Bench) -> Sequence[Row]:
    tree, big = bench.tree, bench.big
    (tree / _SMALL).write_bytes(os.urandom(64 << 10))
    with versitygw(bench.fresh()) as server:
        filled = {layout: _Filled.make(server, layout, tree, big) for layout in LAYOUTS}
        buckets = list(filled.values())

        def ranges(directory: Path) -> dict[str, float]:
            return {"big, ranges": asyncio.run(_parallel_ranges(server, bench.big_size))}

        measured = bench.interleaved(
            *(_import(server, layout, tree) for layout in ("local", *LAYOUTS)),
            *(_cold(bucket, "nar", bucket.tree, _nar, round_trip=0.02) for bucket in buckets),
            *(_cold(bucket, "file", bucket.tree, _file, round_trip=0.05) for bucket in buckets),
            *(_cold(bucket, "big", bucket.big, _nar, round_trip=0) for bucket in buckets),
            ranges,
        )

    def series(what: str, layout: str, times: float = 1) -> Series:
        return Series(layout, [value * times for value in measured[f"{what}, {layout}"]])

    return [
        Row("import Tree to S3", SECONDS, series("import", "packed"), series("import", "local"), Target("at most", 2)),
        Row("import Tree to S3", SECONDS, series("import", "packed"), series("import", "snix")),
        Row("cold path info and NAR of Tree, 20 ms away", SECONDS, series("nar", "packed"), series("nar", "snix")),
        Row("cold file of 64 KiB, 50 ms away", MILLISECONDS, series("file", "packed", 1000), series("file", "snix", 1000)),
        Row("cold NAR of Big from S3", SECONDS, series("big", "packed"), series("big", "ranges"), Target("at most", 1.25)),
        Row("cold NAR of Big from S3", SECONDS, series("big", "packed"), series("big", "snix")),
    ]


@dataclass(frozen=True)
class _Filled:
    """A bucket with both inputs, as store paths."""

    server: Versitygw
    layout: str
    bucket: str
    tree: StorePath
    big: StorePath

    @classmethod
    def make(cls, server: Versitygw, layout: str, tree: Path, big: Path) -> _Filled:
        bucket = server.new_bucket()
        command = (TVIX_STORE, "import", "--store", server.address(bucket, layout=layout))
        paths = [StorePath.parse(output(*command, path).strip()) for path in (tree, big)]
        return cls(server, layout, bucket, *paths)


def _import(server: Versitygw, layout: str, tree: Path) -> Contestant:
    def run(directory: Path) -> dict[str, float]:
        address = f"local://{directory}/store" if layout == "local" else server.address(server.new_bucket(), layout=layout)
        cache = {"XDG_CACHE_HOME": str(directory / "cache")}
        return {f"import, {layout}": timed(TVIX_STORE, "import", "--store", address, tree, environment=cache)}

    return run


def _cold(filled: _Filled, what: str, path: StorePath, read: _Read, *, round_trip: float) -> Contestant:
    """Reads by a new front end, with a link of this `round_trip` (seconds) before the server."""

    async def work(address: str) -> float:
        async with await open_store(address) as store:
            began = time.perf_counter()
            path_info = await store.path_infos.get(path.output_hash)
            assert path_info is not None
            async for _ in read(store, path_info):
                pass
            return time.perf_counter() - began

    def run(directory: Path) -> dict[str, float]:
        with running_link(f"127.0.0.1:{filled.server.port}", round_trip) as link:
            port = int(link.address.rpartition(":")[2])
            address = filled.server.address(filled.bucket, port, layout=filled.layout, view=str(directory))
            return {f"{what}, {filled.layout}": asyncio.run(work(address))}

    return run


async def _nar(store: Store, path_info: PathInfo) -> AsyncIterator[bytes]:
    """As the binary cache makes it."""
    node, size = path_info.node, path_info.nar.size
    planned = PlannedNars.of(store)
    if planned is None or not is_worth_a_plan(node, size):
        async for piece in render_nar(store.blobs, store.directories.tree(node)):
            yield piece
        return
    async for piece in planned.read(node, await planned.plan(node), 0, size):
        yield piece


async def _file(store: Store, path_info: PathInfo) -> AsyncIterator[bytes]:
    node = await lookup(store.directories.tree(path_info.node), _SMALL.encode())
    assert isinstance(node, FileNode)
    async for piece in store.blobs.read(node.digest):
        yield piece


async def _parallel_ranges(server: Versitygw, size: int) -> float:
    """Seconds to read one object of `size` bytes in ranges, several at a time."""
    bucket = BucketAddress.parse(Address.parse(server.address(server.new_bucket())), frozenset()).open(create=True)
    await bucket.put("object", bytes(size))
    began = time.perf_counter()
    reading: deque[asyncio.Task[memoryview | None]] = deque()
    for at in range(0, size, _RANGE):
        reading.append(asyncio.create_task(bucket.get_range("object", at, min(_RANGE, size - at))))
        if len(reading) == _AT_ONCE:
            await reading.popleft()
    for task in reading:
        await task
    seconds = time.perf_counter() - began
    await bucket.close()
    return seconds

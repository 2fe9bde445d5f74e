"""A process that writes to a local store until it is killed, and tells on its standard output what was acknowledged.

Run as: python writer_process.py STORE SEED [DISK], where DISK is the directory of a SimulatedDisk (then with -m, as a module).
Each line of its output is `blob <hex digest>`,
`directory <hex digest>`, `path <store path> <hex of blob>`, `signature <name>`, which was added to the path info `shared(name)`,
`records <seed> <number>`, which are two that were put together, or `tree <seed> <number>`, a small tree that was put with `link`.
Contents follow from the seed, so whoever reads the lines can tell whether what the store holds is right.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tvix_store.backends.local import open_store
from tvix_store.backends.local.durability import Durability
from tvix_store.model.digest import EMPTY, Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.staging import StagedNar
from tvix_store.services.store import Store

PACK_SIZE = 4 << 20
SHARED_PATHS = 512
"""So many that none gets as many signatures as it has places for."""


def shared(signature: str) -> StorePath:
    """The path, one of SHARED_PATHS to which all writers add signatures, that is signed by the key of this name."""
    number = int.from_bytes(hashlib.sha256(signature.encode()).digest()[:2]) % SHARED_PATHS
    return StorePath(number.to_bytes(20), "signed-by-many")


def records(seed: str, number: int) -> dict[bytes, bytes]:
    """The records that a writer puts in its round `number`; their values are the keys, and more."""
    keys = (f"one {seed} {number}".encode(), f"two {seed} {number}".encode())
    return {key: key * 20 for key in keys}


def link(seed: str, number: int, root: bytes) -> dict[bytes, bytes]:
    """The record that a writer puts, in its round `number`, with a small tree."""
    return {f"tree {seed} {number}".encode(): root}


async def write_for_ever(store: Store, seed: str) -> AsyncIterator[str]:
    """The lines, each when what it tells of was acknowledged."""
    generator = random.Random(seed)
    for number in range(1_000_000):
        data = generator.randbytes(generator.choice((10, 3000, 40_000, 700_000))) + b"text " * generator.randrange(2000)

        async def pieces(data: bytes = data) -> AsyncIterator[bytes]:
            for at in range(0, len(data), 100_000):
                yield data[at : at + 100_000]

        blob = await store.blobs.put(pieces())
        yield f"blob {blob.hex}"
        many = await store.blobs.put_many([data[:100], data[:200] + b"!"])
        for digest in many:
            yield f"blob {digest.hex}"
        directory = Directory({b"file": FileNode(blob, len(data)), b"small": FileNode(many[0], len(data[:100]))})

        async def graph(directory: Directory = directory) -> AsyncIterator[Directory]:
            yield directory

        root = await store.directories.put(graph())
        yield f"directory {root.hex}"
        node = directory.node()
        output_hash = hashlib.sha256(f"{seed} {number}".encode()).digest()[:20]
        info = await store.path_infos.put(PathInfo(StorePath(output_hash, "written"), node, await store.nar.calculate(node)))
        yield f"path {info.store_path} {blob.hex}"
        own = Signature(f"{seed}-{number}".replace(" ", "-"), bytes(64))
        await store.path_infos.put(PathInfo(shared(own.name), FileNode(EMPTY, 0), NarFacts(1, bytes(32)), signatures=(own,)))
        yield f"signature {own.name}"
        assert store.records is not None
        await store.records.put(records(seed, number))
        yield f"records {seed} {number}"
        assert store.staging is not None
        contents = [data[:300] + b"?", data[:50_000]]
        both = Directory({b"%d" % n: FileNode(Digest.of(content), len(content)) for n, content in enumerate(contents)})
        stage = store.staging.begin()
        try:
            await stage.blobs.put_many(contents)
            await stage.directories.put(graph(both))
            await stage.accept(StagedNar(both.node(), NarFacts(1, bytes(32))), link(seed, number, both.digest.raw))
        finally:
            await stage.close()
        yield f"tree {seed} {number}"
        stage = store.staging.begin()
        try:
            staged = await stage.blobs.put(pieces(data + data[::-1]))
            if number % 3:
                await stage.accept()
                yield f"blob {staged.hex}"
        finally:
            await stage.close()


async def write(directory: Path, seed: str, durability: Callable[[Path], Durability]) -> None:
    async with await open_store(directory, pack_size=PACK_SIZE, durability=durability) as store:
        async for line in write_for_ever(store, seed):
            print(line, flush=True)


if __name__ == "__main__":
    durability: Callable[[Path], Durability] = Durability
    if len(sys.argv) > 3:
        from tests.backends.local.simulated_disk import SimulatedDisk

        durability = SimulatedDisk(Path(sys.argv[3]))
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2], durability))

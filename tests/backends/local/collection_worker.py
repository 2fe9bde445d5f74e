"""A process at work on a store that is collected: `collection_worker.py push|pull|collect STORE SEED`. It ends when it is killed.

It tells on its standard output: `path HASH`, which was acknowledged; `removing HASH` and `removed HASH`, before and after a
removal; `partial HASH WHY`, a path that is there and not whole; `read`; `run BYTES`, a collection that freed so many; `failed` and
`refused`, an error of a collection, and of a push.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from tvix_store.backends.local import open_store
from tvix_store.backends.local.collection import rewriting
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.config import verified
from tvix_store.errors import StoreError
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.services.staging import StagedNar
from tvix_store.services.store import Store
from tvix_store.testing.content import noise, stream
from tvix_store.testing.trees import CastoreTree, Tree, TreeFile, castore

POOL = 40
"""Files that all trees are made of, so that they share most of their content."""
NEVER = 1 << 31
PACK_SIZE = 1 << 20


def tell(*words: object) -> None:
    print(*words, flush=True)


def some_tree(generator: random.Random) -> Tree:
    def file() -> TreeFile:
        number = generator.randrange(POOL)
        return TreeFile(noise((10, 3000, 40_000, 150_000)[number % 4] + number, f"pool {number}"))

    tree: dict[bytes, Tree] = {b"%d" % number: file() for number in range(generator.randrange(1, 4))}
    tree[b"sub"] = {b"%d" % number: file() for number in range(generator.randrange(1, 3))}
    if generator.random() < 0.3:
        tree[b"own"] = TreeFile(generator.randbytes(generator.randrange(20_000)))
    return tree


async def push(store: Store, seed: str) -> None:
    generator = random.Random(seed)
    own: list[bytes] = []
    number = 0
    while True:
        number += 1
        content = castore(some_tree(generator), store.size_rule)
        output_hash = noise(20, f"{seed} {number}")
        try:
            await (put if number % 3 else put_staged)(store, content, StorePath(output_hash, "pushed"))
        except StoreError as error:
            tell("refused", type(error).__name__, error)
            continue
        own.append(output_hash)
        tell("path", output_hash.hex())
        while len(own) > generator.randrange(3, 12):
            gone = own.pop(generator.randrange(len(own)))
            tell("removing", gone.hex())
            assert store.removal is not None
            if await store.removal.remove([gone], unused_since=NEVER):
                tell("removed", gone.hex())


async def put(store: Store, content: CastoreTree, path: StorePath) -> None:
    """As a client does: what the store has is not sent. What was collected meanwhile is sent once more."""
    for last in (False, False, True):
        try:
            missing = await store.blobs.missing(list(content.blobs))
            await store.blobs.put_many([content.blobs[digest] for digest in missing])
            await store.directories.put(stream(content.directories))
            nar = await store.nar.calculate(content.root)
            await verified(store).path_infos.put(PathInfo(path, content.root, nar))
        except StoreError:
            if last:
                raise
        else:
            return


async def put_staged(store: Store, content: CastoreTree, path: StorePath) -> None:
    assert store.staging is not None
    for last in (False, False, True):
        stage = store.staging.begin()
        try:
            for blob in content.blobs.values():
                await stage.blobs.put(stream([blob]))
            await stage.directories.put(stream(content.directories))
            nar = await calculate_nar_of(content)
            await stage.accept(StagedNar(content.root, nar))
            await verified(store).path_infos.put(PathInfo(path, content.root, nar))
        except StoreError:
            if last:
                raise
        else:
            return
        finally:
            await stage.close()


async def calculate_nar_of(content: CastoreTree) -> NarFacts:
    """By another store."""
    async with await open_memory() as memory:
        for blob in content.blobs.values():
            await memory.blobs.put(stream([blob]))
        await memory.directories.put(stream(content.directories))
        return await calculate_nar(memory.blobs, memory.directories.tree(content.root))


async def pull(store: Store, seed: str) -> None:
    generator = random.Random(seed)
    while True:
        found = [info async for info in store.path_infos.list()]
        for info in generator.sample(found, min(len(found), 10)):
            await look(store, info)
        await asyncio.sleep(0.01)


async def look(store: Store, info: PathInfo) -> None:
    """Read all of a path, unless it is removed meanwhile."""
    try:
        if await calculate_nar(store.blobs, store.directories.tree(info.node)) == info.nar:
            tell("read")
            return
        why = "wrong bytes"
    except StoreError as error:
        why = str(error)
    if await store.path_infos.get(info.store_path.output_hash) == info:
        tell("partial", info.store_path.output_hash.hex(), why)


async def collect(store: Store, seed: str) -> None:
    assert store.collection is not None
    while True:
        try:
            done = await store.collection.collect(0)
            tell("run", done.freed, done.condemned.count, done.dropped.count)
        except StoreError as error:
            tell("failed", type(error).__name__, error)
            await asyncio.sleep(0.05)


async def main(role: str, directory: str, seed: str) -> None:
    rewriting._REST = 0.0
    async with await open_store(Path(directory), pack_size=PACK_SIZE) as store:
        await {"push": push, "pull": pull, "collect": collect}[role](store, seed)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Stores in a packed bucket, for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from obstore.store import MemoryStore

from tvix_store.backends.objectstore import packed_store
from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.directory_bucket import DirectoryBucket
from tvix_store.backends.objectstore.packed.engine import PackedSettings
from tvix_store.backends.objectstore.settings import Settings
from tvix_store.chunking import DEFAULT_SIZES, ChunkSizes
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.services.staging import StagedNar
from tvix_store.services.store import Store
from tvix_store.testing.content import collect, noise, put_tree
from tvix_store.testing.trees import Tree, TreeFile, nar


def memory_bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory")


def file_bucket(directory: Path) -> Bucket:
    directory.mkdir(exist_ok=True)
    return DirectoryBucket(directory, "files")


def files_of(count: int, seed: str = "") -> dict[bytes, TreeFile]:
    """A directory of small files, all different."""
    return {b"%05d" % number: TreeFile(noise(100 + number % 400, f"{seed} {number}")) for number in range(count)}


async def stage(store: Store, tree: Tree) -> Node:
    """Put a tree by a stage, with the facts of its NAR."""
    assert store.staging is not None
    begun = store.staging.begin()
    try:
        node = await put_tree(store.with_services(blobs=begun.blobs, directories=begun.directories), tree)
        await begun.accept(StagedNar(node, facts_of(tree)))
    finally:
        await begun.close()
    return node


def facts_of(tree: Tree) -> NarFacts:
    encoded = nar(tree)
    return NarFacts(len(encoded), hashlib.sha256(encoded).digest())


async def put_path(store: Store, tree: Tree, name: str = "tree") -> PathInfo:
    """As an import: stage a tree, then put its path info."""
    info = PathInfo(StorePath(noise(20, name), name), await stage(store, tree), facts_of(tree))
    return await store.path_infos.put(info, calculated=True)


async def nar_of(store: Store, info: PathInfo) -> bytes:
    """The NAR of a path, as it is served."""
    planned = PlannedNars.of(store)
    assert planned is not None
    plan = await planned.plan(info.node)
    return await collect(planned.read(info.node, plan, 0, plan.size))


async def open_packed(
    bucket: Bucket,
    views: Path,
    *,
    chunk_average: int = DEFAULT_SIZES.average,
    pack_size: int = PackedSettings().pack_size,
    fresh: float = PackedSettings().fresh,
) -> Store:
    packing = PackedSettings(ChunkSizes.of_average(chunk_average), pack_size, fresh)
    return await packed_store(bucket, Settings(layout="packed", chunk_average=chunk_average), views, packing)

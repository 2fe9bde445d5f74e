"""LocalPathInfos and LocalNarFacts: the small records of a local store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.requests import NarOfNode, PutNarFacts, PutPathInfo
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import Node, encode_node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust

_PAGE = 256
"""Rows that `list` takes from the index at a time: a reader that stays keeps old pages of the index from being used again."""

_LOOKED_UP_HERE = 64
"""Path infos that are looked up on the event loop, in some 0.5 ms."""


class LocalPathInfos:
    """The PathInfoService of a local store."""

    def __init__(self, engine: Engine, store_dir: str) -> None:
        self._engine = engine
        self._store_dir = store_dir

    async def get(self, output_hash: bytes) -> PathInfo | None:
        encoded = self._engine.index.path_info(output_hash)
        return None if encoded is None else PathInfo.stored(encoded)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        if len(output_hashes) <= _LOOKED_UP_HERE:
            return self._found(output_hashes)
        return await self._engine.in_thread(self._found, output_hashes)

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        return {output_hash: found.store_path for output_hash, found in (await self.get_many(output_hashes)).items()}

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        if self._engine.settings.store_dir != self._store_dir:
            await self._engine.in_thread(self._engine.record_store_dir, self._store_dir)
        whole = node_key(path_info.node) if calculated else None
        stored = await asyncio.wrap_future(self._engine.committer.submit(PutPathInfo(path_info, trust, requires, whole)))
        assert stored is not None
        return stored

    async def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        last: bytes | None = after
        while last is not None:
            rows, last = self._engine.index.path_infos_behind(last, _PAGE)
            for _, encoded in rows:
                yield PathInfo.stored(encoded)
            await asyncio.sleep(0)

    async def order(self) -> dict[bytes, int]:
        """As `Arrivals.order`."""
        return await self._engine.in_thread(self._order)

    def _order(self) -> dict[bytes, int]:
        index = self._engine.index
        with index.reading() as txn:
            return {output_hash: sequence for output_hash, sequence, encoded in index.path_info_rows(txn) if encoded is not None}

    def _found(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        found = {each: self._engine.index.path_info(each) for each in output_hashes}
        return {each: PathInfo.stored(encoded) for each, encoded in found.items() if encoded is not None}


class LocalNarFacts:
    """Remembers what is true of nodes' NARs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, node: Node) -> NarFacts | None:
        await self._engine.without_losses()
        return self._engine.index.nar_facts(node_key(node))

    def begin(self) -> int:
        return self._engine.index.collected()

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        await asyncio.wrap_future(self._engine.committer.submit(PutNarFacts(NarOfNode(node_key(node), facts, since))))


def node_key(node: Node) -> bytes:
    """The key in the index of what is known of a node's NAR."""
    return Digest.of(encode_node(b"", node)).raw

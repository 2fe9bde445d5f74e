"""CachedPathInfos: the path infos of a far store, each believed for a while."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from tvix_store.concurrency.shared_calls import SharedCalls
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.trust import NOBODY, Trust
from tvix_store.services.many_path_infos import ManyPathInfos
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.removal import Guard, Removal
from tvix_store.telemetry import meters

_MOST = 32 << 20
"""Bytes of path infos that are kept."""
_COST = 500
"""Bytes that one takes in memory beside its encoding. An answer that there is none takes as much."""


class CachedPathInfos(PassingPathInfos):
    """A PathInfoService over `far`. It keeps what it is told in memory: path infos change, since signatures are added.

    A path info is believed for `ttl` seconds, and that there is none for `negative_ttl`. `existing` asks far: puts rely on it.
    What was believed, and is not so, is forgotten then.
    """

    def __init__(self, far: PathInfoService, ttl: float, negative_ttl: float) -> None:
        super().__init__(far)
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._kept: dict[bytes, tuple[float, PathInfo | None]] = {}
        self._size = 0
        self._changes = 0
        self._fetch = SharedCalls(self._fetched)

    async def get(self, output_hash: bytes) -> PathInfo | None:
        return (await self.get_many([output_hash])).get(output_hash)

    async def get_many(self, output_hashes: Sequence[bytes]) -> dict[bytes, PathInfo]:
        now = _now()
        found: dict[bytes, PathInfo | None] = {}
        for each in output_hashes:
            until, path_info = self._kept.get(each, (0.0, None))
            if until > now:
                found[each] = path_info
        lacking = [each for each in output_hashes if each not in found]
        meters.CACHE_LOOKUPS.of("near path info", "hit").add(len(found))
        meters.CACHE_LOOKUPS.of("near path info", "miss").add(len(lacking))
        if lacking:
            found |= zip(lacking, await self._fetch(lacking), strict=True)
        return {output_hash: path_info for output_hash, path_info in found.items() if path_info is not None}

    async def existing(self, output_hashes: Sequence[bytes]) -> dict[bytes, StorePath]:
        there = await self._inner.existing(output_hashes)
        for each in output_hashes:
            kept = self._kept.get(each)
            if kept is not None and (kept[1] is None) == (each in there):
                self._drop(each)
        return there

    async def put(
        self, path_info: PathInfo, trust: Trust = NOBODY, *, requires: Collection[StorePath] = (), calculated: bool = False
    ) -> PathInfo:
        output_hash = path_info.store_path.output_hash
        try:
            stored = await self._inner.put(path_info, trust, requires=requires, calculated=calculated)
        except BaseException:
            self.forget([output_hash])  # it may be stored for all that
            raise
        self.learn([stored])
        return stored

    def learn(self, stored: Sequence[PathInfo]) -> None:
        """Believe these path infos, which were just put."""
        self.forget([each.store_path.output_hash for each in stored])
        for each in stored:
            self._keep(each.store_path.output_hash, each)

    def forget(self, output_hashes: Collection[bytes]) -> None:
        """Believe nothing of these paths. Answers that are under way are not kept."""
        self._changes += 1
        for each in output_hashes:
            self._drop(each)

    async def _fetched(self, output_hashes: Sequence[bytes]) -> list[PathInfo | None]:
        changes = self._changes
        if len(output_hashes) == 1:
            found = [await self._inner.get(output_hashes[0])]
        else:
            there = await self._inner.get_many(output_hashes)
            found = [there.get(each) for each in output_hashes]
        if changes == self._changes:
            for output_hash, path_info in zip(output_hashes, found, strict=True):
                self._keep(output_hash, path_info)
        return found

    def _keep(self, output_hash: bytes, path_info: PathInfo | None) -> None:
        lifetime = self._negative_ttl if path_info is None else self._ttl
        if lifetime <= 0:
            return
        self._drop(output_hash)
        self._kept[output_hash] = _now() + lifetime, path_info
        self._size += _cost(path_info)
        while self._size > _MOST:
            self._drop(next(iter(self._kept)))

    def _drop(self, output_hash: bytes) -> None:
        kept = self._kept.pop(output_hash, None)
        if kept is not None:
            self._size -= _cost(kept[1])


class CachedManyPathInfos:
    """A ManyPathInfos from which `path_infos` learns what is put."""

    def __init__(self, far: ManyPathInfos, path_infos: CachedPathInfos) -> None:
        self._far = far
        self._path_infos = path_infos

    async def put_many(self, path_infos: Sequence[PathInfo], /) -> list[PathInfo]:
        """As `ManyPathInfos.put_many`."""
        try:
            stored = await self._far.put_many(path_infos)
        except BaseException:
            self._path_infos.forget([each.store_path.output_hash for each in path_infos])
            raise
        self._path_infos.learn(stored)
        return stored


class ForgettingRemoval:
    """A Removal after which `path_infos` does not believe any more what is removed."""

    def __init__(self, far: Removal, path_infos: CachedPathInfos) -> None:
        self._far = far
        self._path_infos = path_infos

    async def remove(
        self,
        output_hashes: Collection[bytes],
        *,
        unused_since: int | None,
        ignore_references: bool = False,
        guard: Guard | None = None,
    ) -> set[bytes]:
        """As `Removal.remove`."""
        try:
            return await self._far.remove(
                output_hashes, unused_since=unused_since, ignore_references=ignore_references, guard=guard
            )
        finally:
            self._path_infos.forget(output_hashes)


def _cost(path_info: PathInfo | None) -> int:
    return _COST if path_info is None else _COST + len(path_info.encoded)


def _now() -> float:
    return time.monotonic()

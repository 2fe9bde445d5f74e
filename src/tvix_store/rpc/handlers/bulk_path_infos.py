"""BulkService, path infos: many in one call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.protocol.bulk import MAX_PATHS, decode_output_hashes, decode_path_infos, encode_blobs, encode_store_paths
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, Unary
from tvix_store.services.path_infos import PathInfoService
from tvix_store.telemetry import meters, notes

_MESSAGE = 1 << 20
"""Bytes of path infos that fill an answer's message."""
_AT_ONCE = 32
"""Path infos that are got at once. Most have a KiB, but one may have 4 MiB. A daemon before other caches fetches so many
at once for a call."""
_NAMED_AT_ONCE = 64
"""Paths that are looked up at once. A daemon before other caches asks these about so many at once."""
_PUT_AT_ONCE = 64
"""Path infos that are put at once. Each may read the content of its path, and they share the syncs of the disk."""
_MOST_PUT = 4 << 20
"""Bytes of a message of path infos that are put, as those of a single one."""
_ENCODED_HASH = 22
"""Bytes of an output hash in a message."""


def bulk_path_info_methods(path_infos: PathInfoService) -> dict[str, Method]:
    """The calls by path."""

    async def get_path_infos(output_hashes: list[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        batch: list[bytes] = []
        size = 0
        for start in range(0, len(output_hashes), _AT_ONCE):
            for path_info in (await path_infos.get_many(output_hashes[start : start + _AT_ONCE])).values():
                if batch and size + len(path_info.encoded) > _MESSAGE:
                    yield encode_blobs(batch)
                    batch, size = [], 0
                batch.append(path_info.encoded)
                size += len(path_info.encoded)
        if batch:
            yield encode_blobs(batch)

    async def existing_paths(output_hashes: list[bytes], _call: Call) -> bytes:
        found: list[StorePath] = []
        for start in range(0, len(output_hashes), _NAMED_AT_ONCE):
            found += (await path_infos.existing(output_hashes[start : start + _NAMED_AT_ONCE])).values()
        return encode_store_paths(found)

    async def put_path_infos(given: list[PathInfo], _call: Call) -> bytes:
        stored: dict[int, PathInfo] = {}
        for level in _levels(given):
            stored |= zip(level, await each_at_once(path_infos.put, [given[at] for at in level], _PUT_AT_ONCE), strict=True)
        meters.PATHS_PUSHED.of("grpc").add(len(stored))
        notes.note("pushed", str(given[0].store_path) if len(given) == 1 else f"{len(given)} paths")
        return encode_blobs(stored[at].encoded for at in range(len(given)))

    many = Takes(max_message=MAX_PATHS * _ENCODED_HASH, decode=decode_output_hashes)
    return {
        f"/{BULK_SERVICE}/GetPathInfos": ServerStreaming(get_path_infos, many),
        f"/{BULK_SERVICE}/ExistingPaths": Unary(existing_paths, many),
        f"/{BULK_SERVICE}/PutPathInfos": Unary(put_path_infos, Takes(max_message=_MOST_PUT, decode=decode_path_infos, writes=True)),
    }


def _levels(path_infos: Sequence[PathInfo]) -> list[list[int]]:
    """The places of path infos that can be put at the same time: each level refers only to levels before it."""
    level_of: dict[StorePath, int] = {}
    levels: list[list[int]] = []
    for at, path_info in enumerate(path_infos):
        level = 1 + max((level_of[each] for each in path_info.references if each in level_of), default=-1)
        level_of[path_info.store_path] = level
        if level == len(levels):
            levels.append([])
        levels[level].append(at)
    return levels

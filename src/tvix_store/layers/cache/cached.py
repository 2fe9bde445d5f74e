"""cached: an offer whose content is read by way of a near store."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tvix_store.layers.cache.blobs import CachedBlobs
from tvix_store.layers.cache.chunks import Chunks
from tvix_store.layers.cache.directories import CachedDirectories
from tvix_store.layers.cache.fills import Fills
from tvix_store.layers.cache.frames import CachedFrames
from tvix_store.layers.cache.granular import CachedGranular
from tvix_store.layers.cache.near import Near
from tvix_store.layers.cache.path_infos import CachedManyPathInfos, CachedPathInfos, ForgettingRemoval
from tvix_store.operations.granular.plain import PlainGranular
from tvix_store.services.offer import Offer

PATH_INFO_TTL = 30.0
"""Seconds for which a path info is believed, and
NEGATIVE_TTL: that there is none."""
NEGATIVE_TTL = 3.0


def cached(near: Near, far: Offer, *, path_info_ttl: float = PATH_INFO_TTL, negative_ttl: float = NEGATIVE_TTL) -> Offer:
    """The services and powers of `far`, whose content is read from `near` as far as it is there, and kept there.

    All puts go to far; what it has acknowledged is then near. Far alone tells what is there and what is missing, and it calculates
    NARs from its own content: a path info that is put needs content in far. While far does not answer, content that is near can be
    read. Records, stages, and all powers that only write, are far's own.

    Path infos are kept in memory: for `path_info_ttl` seconds, or `negative_ttl` if there is none. 0 keeps none.

    Closing the offer closes both. Several offers may share a `near`. They are closed together.
    """
    fills = Fills(near)
    changed: dict[str, Any] = {}
    if far.directories is not None:
        directories = changed["directories"] = CachedDirectories(fills, far.directories, far.granular)
    if far.blobs is not None:
        chunks = Chunks(fills, far.blobs, far.granular)
        changed["blobs"] = CachedBlobs(fills, far.blobs, chunks)
        changed["frames"] = far.frames and CachedFrames(fills, far.frames)
    if far.blobs is not None and far.directories is not None:
        # Also where far has none: what is missing would be told of what is near.
        granular = far.granular or PlainGranular(far.blobs, far.directories, far.assembling)
        changed["granular"] = CachedGranular(fills, granular, chunks, directories)
    if far.path_infos is not None:
        path_infos = CachedPathInfos(far.path_infos, path_info_ttl, negative_ttl)
        changed["path_infos"] = path_infos
        changed["many_path_infos"] = far.many_path_infos and CachedManyPathInfos(far.many_path_infos, path_infos)
        changed["removal"] = far.removal and ForgettingRemoval(far.removal, path_infos)

    async def close() -> None:
        try:
            await fills.close()
        finally:
            await far.close()

    kept = {field.name: getattr(far, field.name) for field in fields(Offer)}
    return Offer(**(kept | changed | {"close": close}))

"""Paths in a store itself: no upstream is asked, and nothing is fetched."""

from __future__ import annotations

from tvix_store.errors import NotFoundError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath, parse_output_hash
from tvix_store.services.store import Store


async def kept_path(store: Store, output_hash: bytes) -> PathInfo | None:
    """The path info of an output hash in the store itself."""
    kept = store.path_infos.get if store.foreign_paths is None else store.foreign_paths.kept
    return await kept(output_hash)


async def kept_store_path(store: Store, text: str) -> StorePath:
    """The store path that `text` names: a store path, its base name, or its hash.

    Raises:
        InvalidError: `text` is none of these.
        NotFoundError: the store path is not in the store itself.
    """
    base = text.removeprefix(store.store_dir + "/")
    path_info = await kept_path(store, parse_output_hash(base, store.store_dir))
    if path_info is None:
        raise NotFoundError("store path", text)
    return path_info.store_path

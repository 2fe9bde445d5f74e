"""Paths in a store itself: no upstream is asked, and nothing is fetched."""

from __future__ import annotations

from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.trees.path_name import PathName
from tvix_store.services.store import Store


async def kept_path(store: Store, output_hash: bytes) -> PathInfo | None:
    """The path info of an output hash in the store itself."""
    kept = store.path_infos.get if store.foreign_paths is None else store.foreign_paths.kept
    return await kept(output_hash)


async def kept_store_path(store: Store, text: str) -> StorePath:
    """The store path that `text` names: a store path, its base name, or its hash.

    Raises:
        InvalidError: `text` is none of these.
        NotFoundError: the store path is not in the store itself, or has another name there.
    """
    name = PathName.parse(text, store.store_dir)
    path_info = await kept_path(store, name.output_hash)
    name.check(None if path_info is None else path_info.store_path, store.name)
    assert path_info is not None
    return path_info.store_path

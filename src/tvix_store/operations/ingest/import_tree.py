"""import_tree: put a tree of a file system into a store, as `nix-store --add` would.

First the content, then the path info, which makes it all durable. A crash on the way leaves content that no path refers to.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.directory import SizeRule
from tvix_store.model.file_path import StrPath
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.store_path import StorePath, check_store_path_name, fixed_output_path, flat_output_path
from tvix_store.model.wanted import wanted_path
from tvix_store.operations.ingest.account import ImportAccount
from tvix_store.operations.ingest.files_cache import FilesCache
from tvix_store.operations.ingest.import_content import Progress, import_content
from tvix_store.operations.nars.put_calculated import put_calculated
from tvix_store.services.store import Store, wanted_store


@dataclass(frozen=True, slots=True)
class Imported:
    """An imported tree: its root node, the facts of its NAR, its store path, and the path info if one was put.

    `depth` is how many nodes are inside each other at most. Nix reads NARs of at most `nar.MAX_DEPTH`, which stands
    for a NAR that was read.
    """

    node: Node
    nar: NarFacts
    depth: int
    store_path: StorePath
    path_info: PathInfo | None


async def import_tree(
    store: Store,
    path: StrPath,
    *,
    name: str | None = None,
    flat: bool = False,
    path_info: bool = True,
    size_rule: SizeRule | None = None,
    cache: FilesCache | None = None,
    progress: Progress | None = None,
    account: ImportAccount | None = None,
) -> Imported:
    """Import the directory, regular file or symlink at `path`.

    `name` is the store path's (default: the file name). `flat` addresses a regular file by the SHA-256 of its contents alone.
    `path_info=False` stores content only. `size_rule` overrides the store's. Files that look unchanged to `cache` are not read.
    `account` takes what was done.

    Raises:
        InvalidError: something in the tree cannot be stored, or changed while it was read; the name is not allowed.
        DeniedError: something in the tree may not be read.
        ExhaustedError, UnavailableError: the store cannot take it.
    """
    wanted_store(store)
    name = check_store_path_name(_file_name(wanted_path(path)) if name is None else name)
    content = await import_content(
        store, Path(wanted_path(path)), flat=flat, size_rule=size_rule, cache=cache, progress=progress, account=account
    )
    if not flat:
        return await record_import(store, name, content.node, content.nar, content.depth, path_info=path_info)
    ca = ContentAddress(Method.FLAT, NixHash("sha256", content.file_sha256))
    store_path = flat_output_path(name, ca.hash, store.store_dir)
    stored = await put_calculated(store, PathInfo(store_path, content.node, content.nar, ca=ca)) if path_info else None
    return Imported(content.node, content.nar, content.depth, store_path, stored)


async def record_import(store: Store, name: str, node: Node, nar: NarFacts, depth: int, *, path_info: bool = True) -> Imported:
    """Put the path info of content that is in the store, under the path that follows from `name` and the content's NAR."""
    ca = ContentAddress(Method.NAR, NixHash("sha256", nar.sha256))
    store_path = fixed_output_path(name, nar.sha256, store_dir=store.store_dir)
    stored = await put_calculated(store, PathInfo(store_path, node, nar, ca=ca)) if path_info else None
    return Imported(node, nar, depth, store_path, stored)


def _file_name(path: StrPath) -> str:
    return os.path.basename(os.path.abspath(path))

"""From a text that a person writes to its node: a store path or a digest, perhaps with a path inside."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.digest import Digest
from tvix_store.model.file_path import StrPath
from tvix_store.model.names import show
from tvix_store.model.nodes import FileNode, Node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.model.wanted import wanted
from tvix_store.operations.trees.lookup import lookup
from tvix_store.operations.trees.path_name import PathName
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryTree
from tvix_store.services.store import Store, wanted_store

PathInStore: TypeAlias = StrPath | StorePath | Digest
"""What names a node of a store: see `resolve`."""
_DIGEST = re.compile(r"(?:b3:|blake3-)?(?:[0-9a-f]{64}|[0-9A-Za-z+/]{43}=)(?=/|$)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A tree, and where it was found: in the store path of `path_info`, unless it was named by its digest, at `inner` inside it.

    `name` is the file name that suits its root.
    """

    tree: DirectoryTree
    name: bytes
    path_info: PathInfo | None
    inner: bytes

    @property
    def node(self) -> Node:
        return self.tree.root


async def resolve(store: Store, path: PathInStore, *, follow: bool = False) -> Resolved:
    """The node that `path` names: `/nix/store/<hash>-<name>`, `<hash>-<name>`, `<hash>`, or the digest of a directory or blob.

    A `StorePath` names its root node, and a `Digest` the directory or blob. Behind the texts, `/path/inside` may follow.
    `follow` resolves symlinks on it, and at its end.

    Raises:
        InvalidError: `path` is none of these, or leads out of the store path.
        NotFoundError: it is not in the store, or the path is not in it.
    """
    wanted_store(store)
    text = path_text(path)
    path_info = None
    if digest := _DIGEST.match(text):
        root = await _by_digest(store, Digest.parse(digest[0]))
        name = digest[0].replace("/", "_")
        inner = text[digest.end() :]
    elif text.startswith("b3:"):
        raise InvalidError(f"not a digest: {text[:100]!r} (expected b3: and 64 hex digits)")
    else:
        name_of_path, inner = PathName.split(text, store.store_dir)
        path_info = await _path_info(store, name_of_path)
        root = path_info.node
        name = str(path_info.store_path)
    below = os.fsencode(inner).strip(b"/")
    tree = store.directories.tree(root)
    if not below:
        return Resolved(tree, name.encode(), path_info, below)
    try:
        node = await lookup(tree, below, follow=follow)
    except NotFoundError as error:
        raise (NotFoundError("path", show(os.fsencode(text)), place=store.name) if error.kind == "path" else error) from None
    return Resolved(tree.below(node), below.rpartition(b"/")[2], path_info, below)


def path_text(path: PathInStore) -> str:
    """What `path` is as a text; of a `StorePath` the base name."""
    if not isinstance(path, str | os.PathLike):
        wanted(path, (StorePath, Digest), "a path in the store: a StorePath, a Digest, or a path as a text or pathlib.PurePath")
        return str(path)
    return os.fspath(path)


def parse_digest(text: str) -> Digest | None:
    """The digest that `text` is, or None if it is something else."""
    return Digest.parse(text) if _DIGEST.fullmatch(text) else None


def names_digest(text: str) -> bool:
    """Whether `text` is a digest, or a path inside what it names."""
    return _DIGEST.match(text) is not None


async def path_infos_of(store: Store, texts: Sequence[str]) -> AsyncIterator[PathInfo]:
    """The path infos of the store paths that `texts` name, as `store_path_info`; without any, all of the store."""
    if not texts:
        async for path_info in store.path_infos.list():
            yield path_info
    for text in texts:
        yield await store_path_info(store, text)


async def store_path_info(store: Store, text: str) -> PathInfo:
    """The path info of a store path, its base name, or its hash.

    Raises:
        InvalidError: `text` is none of these.
        NotFoundError: the store path is not in the store, or has another name there.
    """
    return await _path_info(store, PathName.parse(text, store.store_dir))


async def _path_info(store: Store, name: PathName) -> PathInfo:
    path_info = await store.path_infos.get(name.output_hash)
    name.check(None if path_info is None else path_info.store_path, store.name)
    assert path_info is not None
    return path_info


async def blob_size(blobs: BlobService, digest: Digest, place: str = "") -> int:
    """The size of a blob in bytes; where the service cannot tell, the blob is read to count it. `place` is the store's name.

    Raises:
        NotFoundError: it is not in the store.
    """
    stat = await blobs.stat(digest, chunks=True)
    if stat is None:
        raise NotFoundError("blob", digest, place=place)
    if stat.size is not None:
        return stat.size
    if stat.chunks:
        return sum(chunk.size for chunk in stat.chunks)
    size = 0
    async for piece in blobs.read(digest):
        size += len(piece)
    return size


async def _by_digest(store: Store, digest: Digest) -> Node:
    directory = await store.directories.get(digest)
    if directory is not None:
        return directory.node(store.size_rule)
    try:
        return FileNode(digest, await blob_size(store.blobs, digest))
    except NotFoundError:
        raise NotFoundError("directory or blob", digest, place=store.name) from None

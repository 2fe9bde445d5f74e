"""The keys of the snix layout: `blobs/b3/1234/1234…` and the like, digests in lower-case hex."""

from __future__ import annotations

from tvix_store.model.digest import Digest


def blob_key(digest: Digest) -> str:
    """The object that says of which chunks a blob is made."""
    return _key("blobs", digest)


def chunk_key(digest: Digest) -> str:
    """The object with the content of a chunk."""
    return _key("chunks", digest)


def other_chunk_key(digest: Digest) -> str:
    """Where some version of snix has put it."""
    return _key("chunk", digest)


def tree_key(root: Digest) -> str:
    """The object with all directories of a tree."""
    return _key("dirs", root)


def tree_of_key(directory: Digest) -> str:
    """The object that says in which tree a directory stands. It is our own: snix asks for roots only."""
    return _key("tree_of", directory)


def _key(folder: str, digest: Digest) -> str:
    text = digest.hex
    return f"{folder}/b3/{text[:4]}/{text}"

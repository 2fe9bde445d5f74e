"""Content: something to store under a key."""

from __future__ import annotations

from dataclasses import dataclass

from tvix_store.backends.local.records import Buffer, Kind


@dataclass(slots=True)  # frozen, it would take four times as long to make one
class Content:
    """Something to store under a key: a chunk or directory (its digest), or a segment of a chunk list."""

    kind: Kind
    key: bytes
    payload: Buffer
    blob_size: int = 0
    """Of the blob that a chunk list belongs to."""
    packed: Buffer | None = None
    """The payload of a chunk as it is to be stored; None leaves it to the committer to compress it."""

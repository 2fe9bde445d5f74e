"""KeptDocuments: the documents that Nix puts beside narinfos (logs, realisations, build traces, debug information), unchanged.

Contents are blobs. The record `document:` + path names them; its value is u8 version (1), the blob's digest (32 bytes), u64 size.
A path too long for a key is named by its digest instead: `document:` + first part + `/b3:` + BLAKE3 in hexadecimal; none looks so.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterable, AsyncIterator

from blake3 import blake3

from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.services.records import MAX_KEY, RecordService
from tvix_store.services.store import Store

MAX_LOG = 1 << 30
"""Bytes of the largest build log."""
MAX_JSON = 1 << 20
"""Bytes of the largest of all other documents, which have a few hundred."""
_RECORD = struct.Struct("<B32sQ")
_VERSION = 1


class KeptDocuments:
    """Documents by path, such as `log/<derivation>`: the last put wins."""

    def __init__(self, store: Store, records: RecordService) -> None:
        self._blobs = store.blobs
        self._keeping = store.keeping
        self._records = records

    @classmethod
    def of(cls, store: Store) -> KeptDocuments | None:
        """Those of a store, where it takes records."""
        return None if store.records is None else cls(store, store.records)

    async def get(self, kind: str, name: str) -> FileNode | None:
        """The contents of the document `<kind>/<name>`, as a file.

        Raises:
            CorruptError: the record is damaged.
        """
        key = _key(kind, name)
        record = await self._records.get(key)
        if record is None:
            return None
        try:
            version, digest, size = _RECORD.unpack(record)
        except struct.error:
            version = 0
        if version != _VERSION:
            raise CorruptError(f"the record {key!r} is damaged, or was written by another version of this program")
        return FileNode(Digest(digest), size)

    async def put(self, kind: str, name: str, data: AsyncIterable[bytes]) -> None:
        """Keep a document in place of the one that was there.

        Raises:
            UnavailableError: its content was collected at once; it can be put again.
        """
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for piece in data:
                size += len(piece)
                yield piece

        digest = await self._blobs.put(counted())
        async with self._keeping():
            if await self._blobs.missing([digest]):
                raise UnavailableError(f"the content of {kind}/{name} was just collected; put it again")
            await self._records.put({_key(kind, name): _RECORD.pack(_VERSION, digest.raw, size)})

    async def delete(self, kind: str, name: str) -> bool:
        """Delete a document; whether it was there. Its content stays until it is collected."""
        key = _key(kind, name)
        if await self._records.get(key) is None:
            return False
        await self._records.delete([key])
        return True


def _key(kind: str, name: str) -> bytes:
    key = f"document:{kind}/{name}".encode()
    return key if len(key) <= MAX_KEY else f"document:{kind}/b3:{blake3(key).hexdigest()}".encode()

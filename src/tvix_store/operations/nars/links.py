"""NarLinks: from the hash of a NAR to what it holds.

A binary cache gets and gives NARs by their hashes, long before and after the narinfos that tell whose they are. A link is a record,
`nar:` and 32 bytes, whose value is u64 NAR size, NAR SHA-256, and the nameless root node. A second record may describe the zstd
file of the NAR. Its key is `zstd:` and the NAR's SHA-256; its value is u64 size, SHA-256, and the seal (16 bytes) under which these
hold.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.nodes import Node, decode_node, encode_node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.record_kinds import FILE, LINK
from tvix_store.services.records import RecordService
from tvix_store.services.store import Store

_HEAD = struct.Struct("<Q32s")
_FILE = struct.Struct("<Q32s16s")


class NarLink(NamedTuple):
    """What a NAR is, and the root node that it is rendered from."""

    nar: NarFacts
    node: Node


class FileFacts(NamedTuple):
    """What is true of a file that a NAR is served as: its size (bytes) and SHA-256 (32 bytes)."""

    size: int
    sha256: bytes


class NarLinks:
    """The links of a store. Whoever puts one has computed the hash from the content itself."""

    def __init__(self, records: RecordService) -> None:
        self._records = records

    @classmethod
    def of(cls, store: Store) -> NarLinks | None:
        """Those of a store, where it has a place for them."""
        records = store.records or store.links
        return None if records is None else cls(records)

    async def get(self, sha256: bytes) -> NarLink | None:
        """What is known of the NAR whose SHA-256 (32 bytes), or that of a compressed file of it, is `sha256`."""
        value = await self._records.get(_key(sha256))
        if value is None:
            return None
        try:
            size, nar_sha256 = _HEAD.unpack_from(value)
            _, node = decode_node(value[_HEAD.size :])
        except (InvalidError, struct.error):
            raise CorruptError(f"the link of NAR {sha256.hex()} is damaged") from None
        return NarLink(NarFacts(size, nar_sha256), node)

    async def zstd_file(self, nar_sha256: bytes, seal: bytes) -> FileFacts | None:
        """The zstd file as which a NAR is served, where it was put under this seal (16 bytes)."""
        value = await self._records.get(FILE.prefix + nar_sha256)
        if value is None or len(value) != _FILE.size:
            return None
        size, sha256, its_seal = _FILE.unpack(value)
        return FileFacts(size, sha256) if its_seal == seal else None

    async def put(self, link: NarLink, *file_sha256s: bytes) -> None:
        """Link the NAR, and the compressed files of it with these hashes.

        Not durable at once. A power cut may take a link that is younger than a second. It also ends the push of that NAR, and a
        client that pushes again learns that the NAR is not here.
        """
        await self._records.put(link_records(link, *file_sha256s), durable=False)

    async def put_zstd_file(self, link: NarLink, file: FileFacts, seal: bytes) -> None:
        """As `put`, with the zstd file as which the NAR is served."""
        records = link_records(link) | {FILE.prefix + link.nar.sha256: _FILE.pack(*file, seal)}
        await self._records.put(records, durable=False)


def link_records(link: NarLink, *file_sha256s: bytes) -> dict[bytes, bytes]:
    """The records that link a NAR, and the compressed files of it with these hashes."""
    value = _HEAD.pack(link.nar.size, link.nar.sha256) + encode_node(b"", link.node)
    return {_key(sha256): value for sha256 in (link.nar.sha256, *file_sha256s)}


def _key(sha256: bytes) -> bytes:
    return LINK.prefix + sha256

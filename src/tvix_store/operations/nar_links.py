"""NarLinks: from the hash of a NAR to what it holds.

A binary cache gets and gives NARs by their hashes, long before and after the narinfos that tell whose they are. A link is a record,
`nar:` and 32 bytes, whose value is u64 NAR size, NAR SHA-256, and the nameless root node.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.nodes import Node, decode_node, encode_node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.records import RecordService

_HEAD = struct.Struct("<Q32s")


class NarLink(NamedTuple):
    """What a NAR is, and the root node that it is rendered from."""

    nar: NarFacts
    node: Node


class NarLinks:
    """The links of a store. Whoever puts one has computed the hash from the content itself."""

    def __init__(self, records: RecordService) -> None:
        self._records = records

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

    async def put(self, link: NarLink, *file_sha256s: bytes, durable: bool = True) -> None:
        """Link the NAR, and the compressed files of it with these hashes. `durable` is that of `RecordService.put`."""
        value = _HEAD.pack(link.nar.size, link.nar.sha256) + encode_node(b"", link.node)
        await self._records.put({_key(sha256): value for sha256 in (link.nar.sha256, *file_sha256s)}, durable=durable)


def _key(sha256: bytes) -> bytes:
    return b"nar:" + sha256

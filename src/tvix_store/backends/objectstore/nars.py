"""BucketNars: the facts of NARs as objects, one for each node."""

from __future__ import annotations

import logging
from contextlib import suppress

from blake3 import blake3

from tvix_store.backends.objectstore.bucket import Bucket
from tvix_store.backends.objectstore.sealed import seal, unseal
from tvix_store.errors import CorruptError, DeniedError
from tvix_store.model.nodes import Node, encode_node
from tvix_store.model.path_info import NarFacts
from tvix_store.services.nar import KnownNars

FOLDER = "nars"
_SIZE = 8 + 32
_log = logging.getLogger(__name__)


class BucketNars:
    """KnownNars over a bucket. What is known `near` is not asked again."""

    def __init__(self, bucket: Bucket, near: KnownNars) -> None:
        self._bucket = bucket
        self._near = near

    async def get(self, node: Node) -> NarFacts | None:
        facts = await self._near.get(node)
        if facts is None:
            key = _key(node)
            found = await self._bucket.get(key)
            facts = None if found is None else _read(key, found.data)
            if facts is not None:
                await self._near.put(node, facts, 0)
        return facts

    def begin(self) -> int:
        return 0

    async def put(self, node: Node, facts: NarFacts, since: int) -> None:
        if await self._near.get(node) != facts:
            await self._near.put(node, facts, since)
            key = _key(node)
            with suppress(DeniedError):  # who may only read calculates again
                await self._bucket.put(key, seal(key, facts.size.to_bytes(8, "little") + facts.sha256))


def _read(key: str, data: bytes) -> NarFacts | None:
    """The facts in an object; None where it is damaged: they are calculated again then."""
    try:
        _, value = unseal(key, data)
    except CorruptError as error:
        _log.warning("facts of a NAR are not used: %s", error)
        return None
    return NarFacts(int.from_bytes(value[:8], "little"), value[8:]) if len(value) == _SIZE else None


def _key(node: Node) -> str:
    return f"{FOLDER}/{blake3(encode_node(b'', node)).hexdigest()}"

"""KeptPlans: the plans of NARs in a store.

A plan is a blob. The record `plan:` and the BLAKE3 of the nameless root node has its digest. A plan can be made anew at any time.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress

from blake3 import blake3

from tvix_store.errors import NotFoundError, StoreError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import Node, encode_node
from tvix_store.operations.nars.plan import Plan
from tvix_store.services.record_kinds import PLAN
from tvix_store.services.store import Store

_log = logging.getLogger(__name__)


class KeptPlans:
    """Keeps plans, where the store takes records, and it is worth it."""

    def __init__(self, store: Store) -> None:
        self._blobs = store.blobs
        self._records = store.records if store.keeps_plans else None
        self._sync = store.sync
        self._is_written = not store.read_only

    async def get(self, node: Node) -> Plan | None:
        """The plan of a NAR; None where there is none that can be read."""
        if self._records is None:
            return None
        try:
            digest = await self._records.get(_key(node))
            if digest is None:
                return None
            encoded = b"".join([piece async for piece in self._blobs.read(Digest(digest))])
            return Plan.decode(encoded)
        except NotFoundError:
            return None
        except StoreError as error:
            _log.warning("a plan is made anew: %s", error)
            # Then damaged content is forgotten. The new plan may have the same bytes, which must not count as there.
            with suppress(StoreError):
                await self._sync()
            return None

    async def put(self, node: Node, plan: Plan) -> None:
        """Keep a plan, all of which is checked. A power cut may take it."""
        if self._records is not None and self._is_written:
            digest = await self._blobs.put(_whole(plan.encode()))
            await self._records.put({_key(node): digest.raw}, durable=False)

    async def drop(self, node: Node, plan: Plan) -> None:
        """Let the plan be made anew, unless somebody has put another one in its place."""
        if self._records is not None and self._is_written and await self._records.get(_key(node)) == Digest.of(plan.encode()).raw:
            await self._records.delete([_key(node)])


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _key(node: Node) -> bytes:
    return PLAN.prefix + blake3(encode_node(b"", node)).digest()

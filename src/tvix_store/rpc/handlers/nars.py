"""NarService: a NAR in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tvix_store.operations.import_nar import import_nar
from tvix_store.protocol.blobs import decode_chunk
from tvix_store.protocol.dialects import NAR_SERVICE
from tvix_store.protocol.nars import encode_stored_nar
from tvix_store.rpc.method import Call, Method, client_streaming
from tvix_store.services import Store


def nar_methods(store: Store) -> dict[str, Method]:
    """The calls of NarService by path."""

    async def put(messages: AsyncIterator[bytes], _call: Call) -> bytes:
        parts = (decode_chunk(message) async for message in messages)
        node, facts = await import_nar(store.blobs, store.directories, parts, size_rule=store.size_rule)
        await store.nar.record(node, facts)
        return encode_stored_nar(node, facts)

    return {f"/{NAR_SERVICE}/Put": client_streaming(put)}

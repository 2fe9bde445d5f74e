"""Deltas over gRPC keep the contract, and servers that lie or know no deltas do no harm."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.backends.grpc_servers import serve
from tvix_store.backends.grpc import open_store
from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.errors import CorruptError, ExhaustedError
from tvix_store.model.digest import Digest
from tvix_store.protocol.deltas import encode_delta_piece
from tvix_store.protocol.dialects import BULK_SERVICE
from tvix_store.rpc.method import Answer, Call, ServerStreaming
from tvix_store.rpc.services import serve_store
from tvix_store.services.blobs import Chunk
from tvix_store.services.store import Store
from tvix_store.testing.content import missing
from tvix_store.testing.contracts import DeltasContract

pytestmark = pytest.mark.usefixtures("protocol")

BLOB = Chunk(missing(), 1000)


class TestDeltasOfADaemon(DeltasContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with await open_local(tmp_path / "store") as local:
            app, _ = serve_store(local)
            async with serve(app.methods) as url, await open_store(url) as store:
                yield store


async def test_a_server_without_deltas_declines() -> None:
    async with await open_memory() as memory:
        app, _ = serve_store(replace(memory, deltas=None))
        async with serve(app.methods) as url, await open_store(url) as store:
            assert store.deltas is not None
            assert await store.deltas.make(missing(), BLOB, 1000) is None
            with pytest.raises(ExhaustedError, match="no deltas"):
                await store.deltas.apply(missing(), BLOB, b"delta")


@pytest.mark.parametrize(
    "answers", [[b""], [encode_delta_piece(b"x" * 600)] * 2, [b"\xff"]], ids=["nothing", "too much", "garbage"]
)
async def test_what_a_server_sends_is_bounded(answers: list[bytes]) -> None:
    async def make(_message: bytes, _call: Call) -> AsyncGenerator[Answer, None]:
        for answer in answers:
            yield answer

    async with await open_memory() as memory:
        app, _ = serve_store(memory)
        async with (
            serve({**app.methods, f"/{BULK_SERVICE}/MakeDelta": ServerStreaming(make)}) as url,
            await open_store(url) as store,
        ):
            assert store.deltas is not None
            with pytest.raises(CorruptError):
                await store.deltas.make(Digest.of(b"base"), BLOB, 1000)

"""An engine whose certificate was changed: it goes when its connections have gone, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tests.server.certificates import Authority
from tvix_store.backends.memory import open_store
from tvix_store.errors import InvalidError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_digest, encode_chunk
from tvix_store.protocol.dialects import TVIX
from tvix_store.rpc.services import serve_store
from tvix_store.server import engine
from tvix_store.server.listeners import listening
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig, TlsFiles

HEALTH = "/grpc.health.v1.Health/Check"


async def test_calls_go_on_over_the_old_connection_and_later_ones_come_by_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_SETTLED", 0.3)
    authority = Authority()
    files = TlsFiles(*authority.sign().write(tmp_path, "server"))
    config = ServerConfig(("127.0.0.1:0",), tls=files, grace=5)
    credentials = grpc.ssl_channel_credentials(authority.certificate)
    async with await open_store() as store:
        app, _ = serve_store(store)
        with listening(config.listen) as sockets:
            port = sockets[0].getsockname()[1]
            async with (
                serving(app, sockets, config) as [certificate],
                grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel,
            ):
                check: Any = channel.unary_unary(HEALTH)
                assert await check(b"") == b"\x08\x01"
                tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
                assert await certificate.reload() is False  # the files are the same

                put: Any = channel.stream_unary(TVIX.blob("Put"))()
                await put.write(encode_chunk(b"first, "))
                for _ in range(3):
                    authority.sign().write(tmp_path, "server")
                    assert await certificate.reload() is True
                await asyncio.sleep(1)  # the old engines have been shut down meanwhile
                assert await check(b"", timeout=10) == b"\x08\x01"
                await put.write(encode_chunk(b"second"))
                await put.done_writing()
                assert decode_digest(await put) == Digest.of(b"first, second")

                async with asyncio.timeout(10):
                    while True:
                        await asyncio.sleep(0.05)
                        if len(asyncio.all_tasks()) <= tasks and len(os.listdir("/proc/self/fd")) <= descriptors:
                            break

                files.key.write_bytes(authority.sign().key)
                with pytest.raises(InvalidError, match="cannot serve"):
                    await certificate.reload()
                assert await check(b"", timeout=10) == b"\x08\x01"

"""Calls over the wire whose caller or server ends them early."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tvix_store.rpc.asgi import RpcApp, not_found
from tvix_store.rpc.method import Call, Method, ServerStreaming, Streaming, Unary, client_streaming
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig

PROMPT = 1.0
"""Seconds after which a cancelled handler should long have ended."""


class Service:
    """Handlers that go on for ever, and tell when they start and end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def wait(self, _message: bytes, _call: Call) -> bytes:
        async with self:
            await asyncio.sleep(60)
        return b""

    async def pour(self, _message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        async with self:
            while True:
                yield bytes(1 << 16)

    async def swallow(self, messages: AsyncIterator[bytes], _call: Call) -> bytes:
        async with self:
            async for _ in messages:
                self.started.set()
        return b""

    async def think(self, messages: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        async with self:
            await anext(messages)
            await asyncio.sleep(60)
        yield b""

    async def __aenter__(self) -> None:
        self.started.set()

    async def __aexit__(self, *_: object) -> None:
        self.ended.set()

    def methods(self) -> dict[str, Method]:
        return {
            "/s/Wait": Unary(self.wait),
            "/s/Pour": ServerStreaming(self.pour),
            "/s/Swallow": client_streaming(self.swallow),
            "/s/Think": Streaming(self.think),
        }


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[Any]:
    config = ServerConfig(listen=("127.0.0.1:0",), grace=0)
    with listening(config.listen) as sockets:
        async with (
            serving(RpcApp(service.methods(), not_found), sockets, config),
            grpc.aio.insecure_channel(name(sockets[0])) as channel,
        ):
            yield channel


async def messages() -> AsyncIterator[bytes]:
    yield b"first"
    await asyncio.sleep(60)


KINDS = ["Wait", "Pour", "Swallow", "Think"]


def start(channel: Any, kind: str, timeout: float | None = None) -> Any:
    match kind:
        case "Wait":
            return channel.unary_unary(f"/s/{kind}")(b"", timeout=timeout)
        case "Pour":
            return channel.unary_stream(f"/s/{kind}")(b"", timeout=timeout)
        case "Swallow":
            return channel.stream_unary(f"/s/{kind}")(messages(), timeout=timeout)
        case _:
            return channel.stream_stream(f"/s/{kind}")(messages(), timeout=timeout)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_call_ends_its_handler_promptly(channel: Any, service: Service, kind: str) -> None:
    call = start(channel, kind)
    await asyncio.wait_for(service.started.wait(), PROMPT)
    call.cancel()
    await asyncio.wait_for(service.ended.wait(), PROMPT)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_connection_ends_its_handlers_promptly(channel: Any, service: Service, kind: str) -> None:
    call = start(channel, kind)
    await asyncio.wait_for(service.started.wait(), PROMPT)
    await channel.close()
    await asyncio.wait_for(service.ended.wait(), PROMPT)
    assert call.done()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_ends_at_its_deadline(channel: Any, service: Service, kind: str) -> None:
    call = start(channel, kind, timeout=0.2)
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.ended.wait(), PROMPT)


async def test_an_answer_is_not_made_faster_than_it_is_taken(channel: Any, service: Service) -> None:
    before = _memory()
    call = channel.unary_stream("/s/Pour")(b"")
    await call.read()
    await asyncio.sleep(0.5)
    assert _memory() - before < 64 << 20
    call.cancel()
    await asyncio.wait_for(service.ended.wait(), PROMPT)


def _memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

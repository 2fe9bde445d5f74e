"""What a call is to its handler, and the kinds of handlers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvix_store.rpc.status import RpcError, Status
from tvix_store.traffic import Client

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header fields: lower-case names, and values."""


Answer: TypeAlias = bytes | tuple[bytes, bytes]
"""A message, whole or in two parts: so a large piece of data is sent behind its key and length without being copied."""


@dataclass(slots=True)
class Call:
    """One call: the header fields that it came with, and those that the handler wants sent.

    `answer_headers` must be set before the first answer is given, `trailers` before the last.
    """

    path: str
    headers: Fields
    client: Client = None
    answer_headers: Fields = ()
    trailers: Fields = ()


@dataclass(frozen=True, slots=True)
class Unary:
    """One message in, one out."""

    handle: Callable[[bytes, Call], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """Messages in, messages out; they may overlap."""

    handle: Callable[[AsyncIterator[bytes], Call], AsyncGenerator[Answer, None]]


Method: TypeAlias = Unary | Streaming


def server_streaming(handle: Callable[[bytes, Call], AsyncGenerator[Answer, None]]) -> Streaming:
    """One message in, many out."""

    async def stream(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[Answer, None]:
        async with aclosing(handle(await single(messages), call)) as answers:
            async for answer in answers:
                yield answer

    return Streaming(stream)


def client_streaming(handle: Callable[[AsyncIterator[bytes], Call], Coroutine[Any, Any, bytes]]) -> Streaming:
    """Many messages in, one out."""

    async def stream(messages: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        yield await handle(messages, call)

    return Streaming(stream)


async def single(messages: AsyncIterator[bytes]) -> bytes:
    """The only message of a stream.

    Raises:
        RpcError: (UNIMPLEMENTED, as other servers have it) there is none, or more than one.
    """
    only: bytes | None = None
    async for message in messages:
        if only is not None:
            raise RpcError(Status.UNIMPLEMENTED, "this call takes one message, but more were sent")
        only = message
    if only is None:
        raise RpcError(Status.UNIMPLEMENTED, "this call takes one message, but none was sent")
    return only

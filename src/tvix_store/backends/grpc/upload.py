"""One attempt at a call of many messages for one, and how it has really ended."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

from grpc import aio

T = TypeVar("T")
Metadata: TypeAlias = Sequence[tuple[str, str]]
"""Names, in lower case, and values that go before the first message of a call."""

_NOT_THE_SERVERS = "Internal error from Core"
"""What grpcio says of a call where a write has failed, whatever the server says of it."""


async def upload(channel: aio.Channel, path: str, messages: AsyncIterable[bytes], metadata: Metadata) -> bytes | None:
    """Send the messages, as far as the server wants them; its answer, if it sends one.

    Raises:
        AioRpcError: the call ended with another status than OK.
    """
    callee: aio.StreamUnaryMultiCallable[bytes, bytes | None] = channel.stream_unary(path)
    call = callee(metadata=tuple(metadata))
    statuses: list[aio.AioRpcError] = []
    call.add_done_callback(lambda ended: statuses.append(_status(ended)))
    try:
        async for message in messages:
            if call.done():
                break
            try:
                await call.write(message)
            except aio.AioRpcError:
                break
        if not call.done():
            await call.done_writing()
        return await call
    except aio.AioRpcError as error:
        # A server may end a call early. The write that fails then sets the status INTERNAL, before or
        # after the server's own status is set: with grpcio 1.85, 1 of 10 uploads that a full disk ended was said to be INTERNAL.
        raise next((status for status in statuses if status.details() != _NOT_THE_SERVERS), error) from error
    finally:
        call.cancel()


def _status(call: aio.StreamUnaryCall[bytes, bytes | None]) -> aio.AioRpcError:
    """The status of a call that has one by now."""
    return aio.AioRpcError(_result(call.code()), aio.Metadata(), aio.Metadata(), _result(call.details()))


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for. (A task would run too late: the status may be another one then.)"""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError

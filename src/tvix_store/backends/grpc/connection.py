"""Connection: calls to one server, of raw messages, in one of the protocols, repeated where that is safe."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import TypeVar

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.channel import STALL, THOROUGH, Channel, Messages, Metadata, tls_context, within
from tvix_store.backends.grpc.contents import MESSAGE
from tvix_store.backends.grpc.grpc_channel import GrpcChannel
from tvix_store.backends.grpc.statuses import Subject, store_error
from tvix_store.errors import CorruptError, UnavailableError
from tvix_store.protocol.status import Status

PROMPT = 60.0
"""Seconds for a lookup."""
PATIENCE = 60.0
"""Seconds to wait for a server that is not there yet, where that is asked for."""
DIGESTS_A_CALL = 16 * 1024
"""Half a MiB of digests, in one message."""
AROUND = 16
"""Bytes around a part of a message, at most: its key and length, and a share of those of the message."""
REPLAYED = 4 * 1024 * 1024
"""Bytes of a stream that are kept to be sent again: all directories of most trees, and most blobs."""

_HEALTH = "/grpc.health.v1.Health/Check"
_NOT_SERVING = b"\x08\x02"
_SERVER: Subject = ("service", "grpc.health.v1.Health")
_SLACK = 4096
"""Bytes of a body that are left for what stands around messages."""
_CHANNELS = 4
"""Connections. The kernel deals them to the server's worker processes at random: of two workers, 4 connections leave
one without work in 1 of 8 cases, 2 connections in 1 of 2."""
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before a call is repeated, each to be multiplied by 0.5 to 1.5: in all enough for a server to be started again."""
T = TypeVar("T")


def _channels(address: ServerAddress) -> Sequence[Channel]:
    if address.is_connect:
        from tvix_store.backends.grpc.connect_channel import ConnectChannel  # aiohttp takes a while, and few need it

        return (ConnectChannel(address, tls_context(address, "http/1.1")),)
    tls = tls_context(address, "h2")
    return [GrpcChannel(address, tls) for _ in range(_CHANNELS)]


def _always() -> bool:
    return True


async def _next_of(stream: Messages, patience: float = THOROUGH) -> list[bytes]:
    """The next messages. A server that answers PINGs and nothing else is not waited for without an end."""
    async with within(min(STALL, patience), "no message"):
        return await stream.messages()


class Connection:
    """A few channels to the server at `address`: of gRPC, or one of Connect, which has several connections itself. A call takes the
    one with the fewest calls under way, and of several the first: so calls one after the other wait for one connection to be made.

    A call that ends as UNAVAILABLE is repeated. There are two conditions: no part of its answer was given out, and its input can be
    sent again. To send twice does no harm, since content is named by its digest, and path infos are merged. All methods raise the
    error that `store_error` makes of the server's status. A connection is made in the event loop that uses it.

    `patience`: Seconds in which a server must answer, or send the next of many messages, where it has not less time anyhow.

    Raises:
        InvalidError: the file of authorities cannot be read.
    """

    def __init__(self, address: ServerAddress, patience: float = THOROUGH) -> None:
        self.server = address.name
        self._patience = patience
        self.most_sent = address.max_body - _SLACK if address.is_connect else None
        """The most bytes of messages that one call should carry. None for any number. A proxy may refuse a longer body."""
        self.most_in_message = MESSAGE if self.most_sent is None else min(MESSAGE, self.most_sent)
        """Bytes of content in a message that is sent."""
        self.passes_caches = address.is_connect
        """Whether caches may stand on the way. They can answer a call that is `immutable`."""
        self._channels = _channels(address)
        self._under_way = [0] * len(self._channels)
        """The calls of each channel."""

    async def connect(self, *, wait: bool) -> None:
        """See that the server is there; `wait` for it, for PATIENCE seconds, where it is not.

        Raises:
            UnavailableError: it is not there.
        """
        try:
            with self._channel() as channel:
                await channel.unary(_HEALTH, b"", seconds=PATIENCE if wait else PROMPT, wait=wait)
        except CallError as error:
            if error.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}:
                raise store_error(error, self.server, _HEALTH, _SERVER) from error

    async def check(self) -> None:
        """See that the server can serve.

        Raises:
            UnavailableError: it is not there, or says that it cannot.
        """
        try:
            with self._channel() as channel:
                health = await channel.unary(_HEALTH, b"", seconds=PROMPT)
        except CallError as error:
            if error.status is not Status.UNIMPLEMENTED:  # then it is there, and does not tell more
                raise store_error(error, self.server, _HEALTH, _SERVER) from error
        else:
            if health == _NOT_SERVING:
                raise UnavailableError(f"{self.server}: the server says that it cannot serve now")

    async def call(self, path: str, message: bytes, subject: Subject, *, seconds: float = PROMPT, immutable: bool = False) -> bytes:
        """One message for one. `immutable`: the answer never changes, as the server says too, and a cache may know it."""

        async def attempt() -> bytes | None:
            with self._channel() as channel:
                return await channel.unary(path, message, seconds=min(seconds, self._patience), immutable=immutable)

        return self._answered(await self._repeat(attempt, _always, path, subject))

    async def receive(self, path: str, message: bytes, subject: Subject) -> AsyncGenerator[bytes, None]:
        """Many messages for one. To give up, close the generator."""
        async with aclosing(self.receive_batches(path, message, subject)) as batches:
            async for batch in batches:
                for each in batch:
                    yield each

    async def receive_batches(self, path: str, message: bytes, subject: Subject) -> AsyncGenerator[list[bytes], None]:
        """As `receive`: at a time, all messages that have come."""
        async with AsyncExitStack() as call:

            async def attempt() -> tuple[Messages, list[bytes]]:
                async with AsyncExitStack() as trying:
                    channel = trying.enter_context(self._channel())
                    stream = await trying.enter_async_context(channel.receive(path, message))
                    first = await _next_of(stream, self._patience)
                    call.push_async_callback(trying.pop_all().aclose)
                    return stream, first

            stream, batch = await self._repeat(attempt, _always, path, subject)
            try:
                while batch:
                    yield batch
                    batch = await _next_of(stream, self._patience)
            except CallError as error:
                raise store_error(error, self.server, path, subject) from error

    async def send(
        self,
        path: str,
        messages: Callable[[], AsyncGenerator[bytes, None]],
        subject: Subject,
        *,
        repeatable: Callable[[], bool] = _always,
        metadata: Metadata = (),
    ) -> bytes:
        """One message for the many that `messages` gives; it is called again to send them again, while `repeatable` says yes."""

        async def attempt() -> bytes | None:
            async with aclosing(messages()) as outgoing:
                with self._channel() as channel:
                    return await channel.upload(path, outgoing, metadata)

        return self._answered(await self._repeat(attempt, repeatable, path, subject))

    async def send_once(self, path: str, messages: AsyncGenerator[bytes, None], subject: Subject, metadata: Metadata = ()) -> bytes:
        """As `send`, of messages that can be had only once: repeatable until more was sent than is kept, REPLAYED bytes."""
        kept: list[bytes] = []
        left = REPLAYED

        async def all_messages() -> AsyncGenerator[bytes, None]:
            nonlocal left
            for message in kept:
                yield message
            async for message in messages:
                left -= len(message)
                if left >= 0:
                    kept.append(message)
                else:
                    kept.clear()
                yield message

        async with aclosing(messages):
            return await self.send(path, all_messages, subject, repeatable=lambda: left >= 0, metadata=metadata)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    @contextmanager
    def _channel(self) -> Iterator[Channel]:
        """A channel for a call."""
        number = min(range(len(self._channels)), key=self._under_way.__getitem__)
        self._under_way[number] += 1
        try:
            yield self._channels[number]
        finally:
            self._under_way[number] -= 1

    def _answered(self, answer: bytes | None) -> bytes:
        if answer is None:  # as gRPC has it where the status is OK, but no message came
            raise CorruptError(f"{self.server}: the server sent no answer")
        return answer

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], repeatable: Callable[[], bool], path: str, subject: Subject) -> T:
        for pause in (*_PAUSES, None):
            try:
                return await attempt()
            except CallError as error:
                if error.status is not Status.UNAVAILABLE or pause is None or not repeatable():
                    raise store_error(error, self.server, path, subject) from error
            # Many callers that failed together shall not come back together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
        raise AssertionError  # the last round returns or raises

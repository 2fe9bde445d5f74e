"""Channel: calls to a server, of raw messages, in one protocol. What all protocols share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.call_error import CallError
from tvix_store.client_environment.authorities import authorities_file
from tvix_store.errors import InvalidError, of_disk
from tvix_store.protocol.status import Status

Metadata: TypeAlias = Sequence[tuple[str, str]]
"""Names, in lower case, and values that go before the first message of a call."""

STALL = 600.0
"""Seconds in which a message must have gone, or the next of many have come."""
THOROUGH = 3600.0
"""Seconds for a call that may read all content of a store path."""
CONNECTING = 20.0
"""Seconds in which a connection must be made, TLS and all."""
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between the attempts of a caller that waits for a server. The last value is used from then on."""


class Messages(Protocol):
    """The messages of an answer."""

    async def messages(self) -> list[bytes]:
        """The messages that have come, at least one, as soon as there is one; none at the end.

        Raises:
            CallError: the call has ended with another status than OK.
        """
        ...


class Channel(Protocol):
    """Calls to a server. Belongs to the running event loop."""

    async def unary(
        self, path: str, message: bytes, *, seconds: float, wait: bool = False, immutable: bool = False
    ) -> bytes | None:
        """One message for one, if the server sends one. `wait` for a server that is not there yet.

        `immutable`: the answer never changes, so a cache on the way may know it. The server must have said so of the method.

        Raises:
            CallError: the call ended with another status than OK, or took more than `seconds`.
        """
        ...

    def receive(self, path: str, message: bytes) -> AbstractAsyncContextManager[Messages]:
        """One message for many; the call goes on until the end of the context.

        Raises:
            CallError: there is no connection, or it was lost.
        """
        ...

    async def upload(self, path: str, messages: AsyncIterable[bytes], metadata: Metadata) -> bytes | None:
        """Many messages for one, if the server sends one. They are sent as far as the server wants them.

        Raises:
            CallError: the call ended with another status than OK.
        """
        ...

    async def close(self) -> None: ...


@asynccontextmanager
async def within(seconds: float, failure: str) -> AsyncIterator[None]:
    """Let the body take so long.

    Raises:
        CallError: (DEADLINE_EXCEEDED) it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise CallError(Status.DEADLINE_EXCEEDED, f"{failure} within {seconds:g} seconds") from None


async def only_message(answer: Messages) -> bytes | None:
    """The only message of an answer; None where there is none.

    Raises:
        CallError: as `messages`, or there is more than one.
    """
    answers: list[bytes] = []
    while some := await answer.messages():
        answers += some
        if len(answers) > 1:
            raise CallError(Status.INTERNAL, "the server sent more than one answer")
    return answers[0] if answers else None


def tls_context(address: ServerAddress, *protocols: str) -> ssl.SSLContext | None:
    """How to speak TLS to the server, if so. `protocols` are those over TLS, by their names in ALPN.

    Raises:
        NotFoundError, DeniedError: the file of authorities cannot be read.
        InvalidError: it holds none.
    """
    if not address.tls:
        return None
    authorities = address.ca or authorities_file()
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise InvalidError(f"{address.name}: {authorities} holds no authorities to trust (expected certificates in PEM)") from None
    except OSError as error:
        message = f"{address.name}: cannot read the authorities to trust, {authorities}: {error.strerror or error}"
        raise of_disk(error, message, InvalidError) from None
    context.set_alpn_protocols(protocols)
    return context

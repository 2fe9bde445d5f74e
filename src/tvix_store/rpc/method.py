"""A call as its handler sees it, and the kinds of handlers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from tvix_store.model.grant import OPEN, Grant, Scope
from tvix_store.rpc.status import RpcError, Status
from tvix_store.traffic import Client

T = TypeVar("T")

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
    grant: Grant = OPEN
    answer_headers: Fields = ()
    trailers: Fields = ()


LOOKUP = 8 * 1024
"""Bytes of the largest message of a method that states no bound of its own. Such a message names a thing or two. The longest is a
symlink, to CalculateNAR."""

Decode: TypeAlias = Callable[[bytes], Any]
"""Reads a message into the handler's argument. A large message is read in a thread, so all long work on it belongs here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """The input of a method.

    max_message: Bytes of its largest message. A larger one is refused before a byte of it is kept.
    decode: The function that reads the message. None hands the bytes to the handler, which reads them in a few steps.
    writes: Whether the method changes the store. A read-only server refuses the call before it reads a message.
    is_open: Whether everybody may call it, whoever may read the store.
    immutable: Whether the method has no side effects, and its answer to a message never changes. Connect offers such a unary
        method by GET too, and caches may keep its answers. An error may change.
    """

    max_message: int = LOOKUP
    decode: Decode | None = None
    writes: bool = False
    is_open: bool = False
    immutable: bool = False

    def __post_init__(self) -> None:
        if self.writes and self.immutable:
            raise ValueError("a method that writes has side effects")

    @property
    def needs(self) -> Scope:
        """The scope that a caller needs."""
        if self.is_open:
            return Scope.NOTHING
        return Scope.PUSH if self.writes else Scope.PULL


_LOOKUP = Takes()


@dataclass(frozen=True, slots=True)
class Unary:
    """One message in, one out."""

    handle: Callable[[Any, Call], Coroutine[Any, Any, bytes]]
    takes: Takes = _LOOKUP


@dataclass(frozen=True, slots=True)
class ServerStreaming:
    """One message in, which is kept until the call ends; many out."""

    handle: Callable[[Any, Call], AsyncGenerator[Answer, None]]
    takes: Takes = _LOOKUP


@dataclass(frozen=True, slots=True)
class Streaming:
    """Messages in, messages out; they may overlap. `one_answer`: exactly one comes out."""

    handle: Callable[[AsyncIterator[Any], Call], AsyncGenerator[Answer, None]]
    takes: Takes = _LOOKUP
    one_answer: bool = False


Method: TypeAlias = Unary | ServerStreaming | Streaming


def client_streaming(handle: Callable[[AsyncIterator[Any], Call], Coroutine[Any, Any, bytes]], takes: Takes = _LOOKUP) -> Streaming:
    """Many messages in, one out."""

    async def stream(messages: AsyncIterator[T], call: Call) -> AsyncGenerator[bytes, None]:
        yield await handle(messages, call)

    return Streaming(stream, takes, one_answer=True)


async def single(messages: AsyncIterator[T]) -> T:
    """The only message of a stream.

    Raises:
        RpcError: (UNIMPLEMENTED, as other servers have it) there is none, or more than one.
    """
    only: T | None = None
    async for message in messages:
        if only is not None:
            raise RpcError(Status.UNIMPLEMENTED, "this call takes one message, but more were sent")
        only = message
    if only is None:
        raise RpcError(Status.UNIMPLEMENTED, "this call takes one message, but none was sent")
    return only

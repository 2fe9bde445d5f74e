"""The answers of a server over Connect: a body, a stream of messages, or an error. Nothing in them is trusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiohttp

from tvix_store.backends.grpc.call_error import CallError
from tvix_store.backends.grpc.channel import CONNECTING
from tvix_store.backends.grpc.envelopes import MAX_MESSAGE, Envelopes
from tvix_store.client_environment.unreachable import unreachable, words_of
from tvix_store.errors import InvalidError
from tvix_store.protocol import connect
from tvix_store.protocol.status import Status

_LONGEST_ERROR = 64 << 10
"""Bytes of an error that are read."""
_LONGEST_LINE = 300
"""Characters of a line of text that are shown."""
_TOO_LARGE = (
    "a request body is too large for the server, or for a proxy before it (HTTP status 413); "
    "add ?max_body=BYTES to the address, or raise the limit there (nginx: client_max_body_size)"
)


@contextmanager
def failures_told() -> Iterator[None]:
    """The failures of aiohttp, as the ends of a call.

    Raises:
        CallError: the body raised an error of aiohttp, or of the system.
    """
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise CallError(Status.UNAVAILABLE, f"no connection within {CONNECTING:g} seconds") from None
    except aiohttp.ClientConnectorError as error:  # those of TLS too
        raise CallError(Status.UNAVAILABLE, unreachable(error.os_error) or str(error)) from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise CallError(Status.UNAVAILABLE, str(error.certificate_error)) from error
    except aiohttp.ClientHttpProxyError as error:
        raise CallError(Status.UNAVAILABLE, f"the proxy refused the connection with the HTTP status {error.status}") from error
    except aiohttp.ClientResponseError as error:
        raise CallError(Status.UNAVAILABLE, "the server's answer is not HTTP/1.1; does it speak TLS?") from error
    except aiohttp.ClientPayloadError as error:
        raise CallError(Status.UNAVAILABLE, "the answer breaks off") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientError) as error:
        words = words_of(error) if isinstance(error, OSError) else ""
        raise CallError(Status.UNAVAILABLE, words or "the server closed the connection") from error
    except OSError as error:
        raise CallError(Status.UNAVAILABLE, words_of(error) or "the server closed the connection") from error


async def unary_answer(response: aiohttp.ClientResponse) -> bytes:
    """The message of an answer to a unary call.

    Raises:
        CallError: the answer is an error, or none of Connect's.
    """
    await _check(response, connect.UNARY)
    return await _body(response, MAX_MESSAGE)


class ConnectStream:
    """Messages of an answer. `ask` sends the request, when the first message is wanted."""

    def __init__(self, ask: Callable[[], Awaitable[aiohttp.ClientResponse]]) -> None:
        self._ask = ask
        self._response: aiohttp.ClientResponse | None = None
        self._envelopes = Envelopes(has_end=True)

    async def messages(self) -> list[bytes]:
        with failures_told():
            if self._response is None:
                self._response = await self._ask()
                await _check(self._response, connect.STREAM)
            while self._envelopes.end is None:
                data = await self._response.content.readany()
                if not data:
                    raise CallError(Status.UNAVAILABLE, "the answer breaks off")
                found = self._envelopes.feed(data)
                if found:
                    return found
        self._see_end(self._envelopes.end)
        return []

    def close(self) -> None:
        """The call is not wanted any more."""
        if self._response is not None:
            self._response.close()  # a connection whose answer was read to its end is free already

    def _see_end(self, end: bytes) -> None:
        try:
            error = connect.decode_end(end)
        except InvalidError as wrong:
            raise CallError(Status.INTERNAL, f"the end of the answer is malformed: {wrong}") from None
        if error is not None:
            raise CallError(*error)


async def _check(response: aiohttp.ClientResponse, wanted: str) -> None:
    """Raise CallError where an answer is an error, or not of the `wanted` content type."""
    if response.status != 200:
        raise await _error(response)
    if response.content_type != wanted:
        words = f"the server answered with {response.content_type[:100]!r}; does it speak Connect?"
        raise CallError(Status.UNKNOWN, words)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise CallError(Status.INTERNAL, "the server sent a compressed answer, which it was not asked for")


async def _error(response: aiohttp.ClientResponse) -> CallError:
    """The error that an answer with another status than 200 states, or stands for."""
    if response.status == 413:
        return CallError(Status.RESOURCE_EXHAUSTED, _TOO_LARGE)
    status = connect.OF_HTTP.get(response.status, Status.UNKNOWN)
    words = f"the server answered with the HTTP status {response.status}"
    if response.content_type not in {"application/json", "text/plain"}:
        return CallError(status, words)
    body = await _body(response, _LONGEST_ERROR)
    if response.content_type == "text/plain":
        line = body.decode(errors="replace").partition("\n")[0].strip()
        return CallError(status, f"{words}: {line[:_LONGEST_LINE]}" if line else words)
    try:
        return CallError(*connect.decode_error(body))
    except InvalidError:
        return CallError(status, words)


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
        if size > limit:
            raise CallError(Status.RESOURCE_EXHAUSTED, f"an answer of more than {limit} bytes is over the limit")
        pieces.append(piece)
    return b"".join(pieces)

"""A gRPC client of another make (grpcio), with protobuf messages made from our schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio

from tests.rpc.schema import message


class Client:
    """Calls by path and names of messages. Requests are given as protobuf objects."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def unary(self, path: str, request: Any, answer: str, **options: Any) -> Any:
        """One message in, one out."""
        call = self.channel.unary_unary(path, _serialized, message(answer).FromString)
        return await call(request, **options)

    async def answers(self, path: str, request: Any, answer: str, **options: Any) -> list[Any]:
        """One message in, many out."""
        call = self.channel.unary_stream(path, _serialized, message(answer).FromString)
        return [each async for each in call(request, **options)]

    async def requests(self, path: str, requests: Iterable[Any], answer: str, **options: Any) -> Any:
        """Many messages in, one out."""
        call = self.channel.stream_unary(path, _serialized, message(answer).FromString)
        return await call(iter(list(requests)), **options)


def _serialized(request: Any) -> bytes:
    body: bytes = request.SerializeToString()
    return body

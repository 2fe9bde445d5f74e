"""grpc.health.v1: whether the store behind the services can serve now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from enum import IntEnum

from tvix_store.errors import StoreError
from tvix_store.model import wire
from tvix_store.rpc.method import Call, Method, Unary, server_streaming
from tvix_store.rpc.status import RpcError, Status

HEALTH_SERVICE = "grpc.health.v1.Health"
_log = logging.getLogger(__name__)
_FRESH = 1.0
"""Seconds for which an answer of the store is repeated, and between two looks of a watcher."""
_PATIENCE = 5.0
"""Seconds after which a store that says nothing cannot serve."""


class Serving(IntEnum):
    """The enum ServingStatus."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Health:
    """Answers for `services` by asking `check`, which raises where the store cannot serve.

    `services` are full names; to them comes the empty one, which stands for all.
    """

    def __init__(self, services: Iterable[str], check: Callable[[], Awaitable[None]]) -> None:
        self._services = ["", *services]
        self._check = check
        self._state = Serving.UNKNOWN
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The server goes down: from now on nothing is served, and watchers are told and sent away."""
        self._stopping.set()

    async def state(self) -> Serving:
        """Whether the store can serve: as it said within the last second."""
        if self._stopping.is_set():
            return Serving.NOT_SERVING
        async with self._asking:
            if time.monotonic() >= self._fresh_until:
                self._state = await self._ask()
                self._fresh_until = time.monotonic() + _FRESH
        return self._state

    async def _ask(self) -> Serving:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._check()
        except (StoreError, OSError) as error:  # a TimeoutError is an OSError
            _log.warning("the store cannot serve: %s", error)
            return Serving.NOT_SERVING
        return Serving.SERVING

    def methods(self) -> dict[str, Method]:
        """The calls of the service by path."""
        return {
            f"/{HEALTH_SERVICE}/Check": Unary(self._check_one),
            f"/{HEALTH_SERVICE}/List": Unary(self._check_all),
            f"/{HEALTH_SERVICE}/Watch": server_streaming(self._watch),
        }

    async def _check_one(self, message: bytes, _call: Call) -> bytes:
        service = _service(message)
        if service not in self._services:
            raise RpcError(Status.NOT_FOUND, f"service {service!r} is not served here")
        return _encode(await self.state())

    async def _check_all(self, _message: bytes, _call: Call) -> bytes:
        state = wire.message_field(2, _encode(await self.state()))
        return b"".join(wire.message_field(1, wire.bytes_field(1, name.encode()) + state) for name in self._services)

    async def _watch(self, message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        known = _service(message) in self._services
        told: Serving | None = None
        while True:
            stopping = self._stopping.is_set()
            state = await self.state() if known else Serving.SERVICE_UNKNOWN
            if state != told:
                told = state
                yield _encode(state)
            if stopping:
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), _FRESH)
            except TimeoutError:
                continue


def _service(message: bytes) -> str:
    service = ""
    for field, value in wire.fields(message):
        if field == 1:
            service = wire.as_text(field, value)
    return service


def _encode(state: Serving) -> bytes:
    """The message HealthCheckResponse."""
    return wire.uint_field(1, state)

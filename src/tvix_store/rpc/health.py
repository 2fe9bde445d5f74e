"""grpc.health.v1: whether the stores behind the services can serve now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from enum import IntEnum

from tvix_store.errors import StoreError
from tvix_store.model import wire
from tvix_store.rpc.method import Call, Method, ServerStreaming, Takes, Unary
from tvix_store.rpc.status import RpcError, Status
from tvix_store.services.offer import Check

HEALTH_SERVICE = "grpc.health.v1.Health"
_log = logging.getLogger(__name__)
_FRESH = 1.0
"""Seconds for which an answer of the store is repeated, and between two looks of a watcher."""
_OPEN = Takes(is_open=True)
"""Orchestrators have no token."""
_PATIENCE = 5.0
"""Seconds after which a store that gives no answer counts as unable to serve."""


class Serving(IntEnum):
    """The enum ServingStatus."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class _State:
    """Whether a store can serve: as its check said within the last second."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._state = Serving.UNKNOWN
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> Serving:
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


class Health:
    """Answers for services by their full names, by asking the check of each.

    To them come this service and the empty name, which stand for all: they are served while all are.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        states = {check: _State(check) for check in checks.values()}  # one for services of one store: it is asked once
        everything = list(states.values())
        self._states = {"": everything, **{name: [states[check]] for name, check in checks.items()}, HEALTH_SERVICE: everything}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """The server goes down: from now on nothing is served, and watchers are told and sent away."""
        self._stopping.set()

    async def is_serving(self) -> bool:
        """Whether all services can be served now."""
        return await self._state("") is Serving.SERVING

    async def _state(self, service: str) -> Serving:
        if self._stopping.is_set():
            return Serving.NOT_SERVING
        states = await asyncio.gather(*(state.get() for state in self._states[service]))
        return Serving.SERVING if set(states) == {Serving.SERVING} else Serving.NOT_SERVING

    def methods(self) -> dict[str, Method]:
        """The calls of the service by path."""
        return {
            f"/{HEALTH_SERVICE}/Check": Unary(self._check_one, _OPEN),
            f"/{HEALTH_SERVICE}/List": Unary(self._check_all, _OPEN),
            f"/{HEALTH_SERVICE}/Watch": ServerStreaming(self._watch, _OPEN),
        }

    async def _check_one(self, message: bytes, _call: Call) -> bytes:
        service = _service(message)
        if service not in self._states:
            raise RpcError(Status.NOT_FOUND, f"service {service!r} is not served here")
        return _encode(await self._state(service))

    async def _check_all(self, _message: bytes, _call: Call) -> bytes:
        states = await asyncio.gather(*map(self._state, self._states))
        return b"".join(
            wire.message_field(1, wire.bytes_field(1, name.encode()) + wire.message_field(2, _encode(state)))
            for name, state in zip(self._states, states, strict=True)
        )

    async def _watch(self, message: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        service = _service(message)
        told: Serving | None = None
        while True:
            stopping = self._stopping.is_set()
            state = await self._state(service) if service in self._states else Serving.SERVICE_UNKNOWN
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
    for field, value in wire.few_fields(message):
        if field == 1:
            service = wire.as_text(field, value)
    return service


def _encode(state: Serving) -> bytes:
    """The message HealthCheckResponse."""
    return wire.uint_field(1, state)

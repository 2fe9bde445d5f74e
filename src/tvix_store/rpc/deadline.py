"""Deadlines: the time that a caller gives, and work that must not outlast it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from tvix_store.rpc.status import RpcError, Status

_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
T = TypeVar("T")


def seconds(timeout: bytes) -> float:
    """The value of a `grpc-timeout` field: up to 8 digits and a unit, such as `250m`.

    Raises:
        RpcError: (INVALID_ARGUMENT) it is not one.
    """
    unit = _UNITS.get(timeout[-1:])
    if unit is None or not timeout[:-1].isdigit() or len(timeout) > 9:
        raise RpcError(Status.INVALID_ARGUMENT, f"grpc-timeout {timeout.decode('latin-1')!r} is not a number and a unit")
    return int(timeout[:-1]) * unit


def seconds_of_milliseconds(timeout: bytes) -> float:
    """The value of a `connect-timeout-ms` field: up to 10 digits.

    Raises:
        RpcError: (INVALID_ARGUMENT) it is not one.
    """
    if not timeout.isdigit() or len(timeout) > 10:
        raise RpcError(Status.INVALID_ARGUMENT, f"connect-timeout-ms {timeout.decode('latin-1')!r} is not a number of milliseconds")
    return int(timeout) / 1000


async def within(limit: bytes | None, work: Coroutine[Any, Any, T], read: Callable[[bytes], float] = seconds) -> T:
    """Run `work`, and cancel it when the time that the field `limit` gives, as `read` has it, is over; None gives all time.

    Work that never waits, as most lookups, is done before a clock is set: clients send a deadline with each call, and a clock costs
    as much as a lookup.

    Raises:
        RpcError: (DEADLINE_EXCEEDED) the time was over; (INVALID_ARGUMENT) the field is malformed.
    """
    if limit is None:
        return await work
    try:
        time = read(limit)
    except RpcError:
        work.close()
        raise
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    try:
        async with asyncio.timeout(time) as clock:
            return await _resumed(work, waits_for)
    except TimeoutError:
        if not clock.expired():
            raise
        raise RpcError(Status.DEADLINE_EXCEEDED, f"the call's time of {time:g} s is over") from None


@coroutine
def _resumed(work: Coroutine[Any, Any, T], waits_for: object) -> Generator[object, object, T]:
    """Go on with `work`, which has run until it waits for the first time."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 - it goes on inside of the work, cancellation above all
            step = partial(work.throw, error)
        else:
            step = partial(work.send, value)
        try:
            waits_for = step()
        except StopIteration as done:
            result: T = done.value
            return result

"""Deadlines: work that never waits needs no clock, all other work is cancelled in time."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.rpc.deadline import seconds, within
from tvix_store.rpc.status import RpcError, Status


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"2H", 7200), (b"3M", 180), (b"4S", 4), (b"5m", 0.005), (b"6u", 6e-6), (b"7n", 7e-9), (b"99999999S", 99999999)],
)
def test_a_timeout_is_a_number_and_a_unit(field: bytes, value: float) -> None:
    assert seconds(field) == pytest.approx(value)


@pytest.mark.parametrize("field", [b"", b"S", b"5", b"5s", b"-5S", b"1.5S", b"123456789S", b"\xb2S", b" 5S"])
async def test_a_malformed_timeout_is_refused(field: bytes) -> None:
    with pytest.raises(RpcError, match="grpc-timeout") as caught:
        await within(field, asyncio.sleep(0))
    assert caught.value.status == Status.INVALID_ARGUMENT


@pytest.mark.parametrize("limit", [None, b"5S", b"0n"])
async def test_work_that_never_waits_is_done(limit: bytes | None) -> None:
    async def work() -> str:
        return "done"

    assert await within(limit, work()) == "done"


@pytest.mark.parametrize("limit", [None, b"5S"])
async def test_work_that_waits_in_time_is_done(limit: bytes | None) -> None:
    async def work() -> str:
        for _ in range(3):
            await asyncio.sleep(0.001)
        return await asyncio.to_thread(lambda: "done")

    assert await within(limit, work()) == "done"


async def test_work_that_takes_too_long_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(RpcError) as caught:
        await within(b"10m", work())
    assert caught.value.status == Status.DEADLINE_EXCEEDED
    assert ended == ["cancelled"]


@pytest.mark.parametrize("waits", [False, True])
async def test_errors_of_the_work_come_through(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await within(b"5S", work())


async def test_cancellation_from_outside_reaches_the_work_and_stays_cancellation() -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def work() -> None:
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    task = asyncio.create_task(within(b"5S", work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended"]


async def test_the_work_may_catch_an_error_of_what_it_waits_for_and_go_on() -> None:
    async def work() -> str:
        failing = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failing.set_exception, ValueError("no"))
        try:
            await failing
        except ValueError:
            await asyncio.sleep(0)
            return "went on"
        return "not reached"

    assert await within(b"5S", work()) == "went on"

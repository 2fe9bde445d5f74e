"""A signal to a process of asyncio."""

from __future__ import annotations

import asyncio
import signal
import subprocess

import pytest

from tvix_store.concurrency.signal_process import signal_process


async def test_whether_a_process_has_ended_is_left_to_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    def waited(_process: subprocess.Popen[bytes]) -> int | None:
        raise AssertionError("asyncio waits for the process too")

    process = await asyncio.create_subprocess_exec("sleep", "60")
    monkeypatch.setattr(subprocess.Popen, "poll", waited)
    signal_process(process, signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    signal_process(process, signal.SIGKILL)

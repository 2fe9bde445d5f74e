"""Processes that end with a request, and those that fork after one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from tests.programs import ROOT
from tvix_store.backends.objectstore import threads

_ENDS_WITH_A_REQUEST = """
import asyncio
from obstore.store import MemoryStore
from tvix_store.backends.objectstore.bucket import Bucket
asyncio.run(Bucket(MemoryStore(), "a bucket").put("key", b"content"))
"""
_FORKS = """
import asyncio, os, sys
from obstore.store import MemoryStore
from tvix_store.backends.objectstore.bucket import Bucket
bucket = Bucket(MemoryStore(), "a bucket")
asyncio.run(bucket.put("key", b"content"))
if os.fork() == 0:
    asyncio.run(bucket.get("key"))
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]) if os.getpid() else 0)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def test_a_process_that_ends_with_a_request_ends_well() -> None:
    for _ in range(3):  # half of them aborted
        done = run(_ENDS_WITH_A_REQUEST)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_of_a_process_that_made_requests_is_told_so_and_does_not_hang() -> None:
    done = run(_FORKS)
    assert "forked from one that uses an object store; open stores after a fork" in done.stderr
    assert done.returncode == 1


def test_the_threads_that_wait_are_seen() -> None:
    asyncio.run(_use())
    assert threads.begin_use() == os.getpid()
    threads._wait_for_rest()
    assert set(threads._states()) == {"S"}


async def _use() -> None:
    from obstore.store import MemoryStore

    from tvix_store.backends.objectstore.bucket import Bucket

    await Bucket(MemoryStore(), "a bucket").put("key", b"content")

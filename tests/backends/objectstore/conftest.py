"""Places for buckets, and a server of S3."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.objectstore.versitygw import Versitygw, versitygw


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory that is gone at the end: on a file system in memory, where there is one, since a sync of a disk takes 4 ms."""
    with _in_memory() as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def s3() -> Iterator[Versitygw]:
    """A server for all tests of this process."""
    with _in_memory() as directory, versitygw(Path(directory)) as server:
        yield server


def _in_memory() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")  # a name in it is random
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)

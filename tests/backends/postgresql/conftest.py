"""A real PostgreSQL for the tests of its backend."""

from __future__ import annotations

import pytest

from tests.postgresql import Server
from tests.postgresql import server as shared


@pytest.fixture
def server() -> Server:
    """The server of this process. A test that stops it starts it again."""
    return shared()

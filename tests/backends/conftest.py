"""Tests of the client in both of its protocols: a module says `pytestmark = pytest.mark.usefixtures("protocol")`."""

from __future__ import annotations

import pytest

from tests.backends import grpc_servers


@pytest.fixture(params=["grpc", "connect"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the clients of `serve` speak. Each test is one of both protocols."""
    monkeypatch.setattr(grpc_servers, "PROTOCOL", request.param)
    return str(request.param)

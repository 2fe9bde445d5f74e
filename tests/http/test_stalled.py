"""A client that stops to read: its connection is ended, since the engine would keep an HTTP/1.1 connection for ever."""

from __future__ import annotations

import asyncio

import pytest

from tvix_store.asgi import Event
from tvix_store.backends.memory import open_store
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.model import nixbase32
from tvix_store.operations.ingest.import_nar import import_nar
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.testing import trees
from tvix_store.testing.content import noise, pieces
from tvix_store.testing.trees import TreeFile
from tvix_store.traffic import Budget, Client, Traffic

CLIENT = ("192.0.2.1", 4321)
NAR = trees.nar(TreeFile(noise(4_000_000, "stalled")))


@pytest.mark.parametrize(("version", "ended"), [("1.1", [CLIENT]), ("2", [None])])
async def test_the_connection_of_a_client_that_does_not_read_is_ended(version: str, ended: list[Client]) -> None:
    """Over HTTP/2, the engine ends the stream alone: other answers go on beside it."""
    hung_up: list[Client] = []
    traffic = Traffic(hang_up=hung_up.append)
    traffic.outgoing = Budget(1 << 30, stall=0.1, spared=0.1)
    sent: list[Event] = []

    async def receive() -> Event:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Event) -> None:
        sent.append(event)
        if event["type"] == "http.response.body":
            await asyncio.sleep(3600)

    async with await open_store() as store:
        node, nar = await import_nar(store, pieces(NAR, 1 << 16))
        links = NarLinks.of(store)
        assert links is not None
        await links.put(NarLink(nar, node))
        path = f"/nar/{nixbase32.encode(nar.sha256)}.nar"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
        cache = BinaryCache(store, CacheSettings(), traffic)
        await asyncio.wait_for(cache({**scope, "http_version": version, "client": CLIENT}, receive, send), 30)
    assert (sent[0]["status"], hung_up) == (200, ended)
    assert traffic.outgoing.held == 0

"""Health: the real state of the store, for each service by name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest

from tests.rpc.drive import GRPC, request
from tests.rpc.schema import message
from tvix_store.asgi import App, Event
from tvix_store.backends.memory import open_store
from tvix_store.errors import UnavailableError
from tvix_store.protocol.dialects import DIALECTS
from tvix_store.rpc import health
from tvix_store.rpc.framing import Frames, frame
from tvix_store.rpc.services import serve_store
from tvix_store.rpc.status import Status
from tvix_store.services.store import ServiceChecks

SERVICES = [
    "",
    *(service for dialect in DIALECTS for service in dialect.services),
    "tvix_store.v1.BulkService",
    "tvix_store.v1.SettingsService",
]
Answer = message("grpc.health.v1.HealthCheckResponse")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class Sickness:
    """A store's check that fails while `ill`, and counts."""

    def __init__(self) -> None:
        self.ill = False
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1
        if self.ill:
            raise UnavailableError("the disk is away")


def ask(service: str) -> bytes:
    body: bytes = message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    return frame(body)


@pytest.fixture
def sickness() -> Sickness:
    return Sickness()


async def test_every_service_is_served_while_the_store_can_serve(sickness: Sickness) -> None:
    app, _ = serve_store(replace(await open_store(), check=sickness.check))
    for service in SERVICES:
        outcome = await request(app, "/grpc.health.v1.Health/Check", [ask(service)])
        assert Answer.FromString(outcome.answers[0]).status == SERVING
    assert sickness.checks == 1, "an answer is good for a second"


async def test_no_service_is_served_while_the_store_cannot_serve(sickness: Sickness) -> None:
    sickness.ill = True
    app, _ = serve_store(replace(await open_store(), check=sickness.check))
    found = await statuses(app)
    assert set(found) >= set(SERVICES)
    assert set(found.values()) == {NOT_SERVING}


async def statuses(app: App) -> dict[str, int]:
    outcome = await request(app, "/grpc.health.v1.Health/List", [frame(b"")])
    answer = message("grpc.health.v1.HealthListResponse").FromString(outcome.answers[0])
    return {name: each.status for name, each in answer.statuses.items()}


@pytest.mark.parametrize(
    ("ill", "kinds"),
    [(0, ("BlobService", "BulkService", "SettingsService", "StoreService")), (1, ("DirectoryService",)), (2, ("PathInfoService",))],
)
async def test_services_that_stand_in_several_stores_are_served_each_while_its_own_can_serve(
    ill: int, kinds: tuple[str, ...]
) -> None:
    stores = [Sickness() for _ in range(3)]
    stores[ill].ill = True
    app, _ = serve_store(replace(await open_store(), service_checks=ServiceChecks(*(store.check for store in stores))))
    found = await statuses(app)
    assert found.pop("") == found.pop("grpc.health.v1.Health") == NOT_SERVING, "these stand for all"
    assert {name for name, status in found.items() if status == NOT_SERVING} == {name for name in found if name.endswith(kinds)}
    for name, status in found.items():
        outcome = await request(app, "/grpc.health.v1.Health/Check", [ask(name)])
        assert Answer.FromString(outcome.answers[0]).status == status
    assert [store.checks for store in stores] == [1, 1, 1]


async def test_a_store_that_does_not_answer_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.01)

    async def never() -> None:
        await asyncio.sleep(60)

    app, _ = serve_store(replace(await open_store(), check=never))
    outcome = await request(app, "/grpc.health.v1.Health/Check", [ask("")])
    assert Answer.FromString(outcome.answers[0]).status == NOT_SERVING


async def test_an_unknown_service_is_not_found() -> None:
    app, _ = serve_store(await open_store())
    assert (await request(app, "/grpc.health.v1.Health/Check", [ask("no.Service")])).status == Status.NOT_FOUND


async def test_nothing_is_served_once_the_server_goes_down() -> None:
    app, served = serve_store(await open_store())
    served.stop()
    outcome = await request(app, "/grpc.health.v1.Health/Check", [ask("")])
    assert Answer.FromString(outcome.answers[0]).status == NOT_SERVING


async def test_a_watcher_is_told_of_every_change_and_sent_away_at_the_end(
    sickness: Sickness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_FRESH", 0.01)
    app, served = serve_store(replace(await open_store(), check=sickness.check))
    sent: asyncio.Queue[Event] = asyncio.Queue()

    async def receive() -> Event:
        return {"type": "http.request", "body": ask("tvix.store.v1.BlobService")}

    async def told() -> int:
        (answer,) = Frames(100).feed((await sent.get())["body"])
        return int(Answer.FromString(answer).status)

    scope: Event = {"type": "http", "path": "/grpc.health.v1.Health/Watch", "method": "POST", "headers": [GRPC]}
    watching = asyncio.create_task(app(scope, receive, sent.put))
    assert (await sent.get())["type"] == "http.response.start"
    assert await told() == SERVING
    sickness.ill = True
    assert await told() == NOT_SERVING
    sickness.ill = False
    assert await told() == SERVING
    served.stop()
    assert await told() == NOT_SERVING
    await watching


async def test_a_watcher_of_an_unknown_service_is_told_so(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        watch: Any = cast("Any", channel).unary_stream("/grpc.health.v1.Health/Watch", None, Answer.FromString)(b"\x0a\x02no")
        assert (await watch.read()).status == SERVICE_UNKNOWN
        watch.cancel()

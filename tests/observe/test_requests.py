"""The layer that measures requests: ids, notes, statuses, bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tvix_store.asgi import App, Event, Receive, Send, set_grant
from tvix_store.model.grant import Grant, Scope
from tvix_store.observe.requests import Exchange, ObservedRequests
from tvix_store.telemetry import meters, notes
from tvix_store.telemetry.shared import Row, SharedRows

GRPC = "/tvix.store.v1.PathInfoService/Get"


@pytest.fixture
def counts() -> Iterator[SharedRows]:
    """What this test counts."""
    shared = SharedRows(1)
    meters.count_in(shared.row(0))
    yield shared
    meters.count_in(Row.private())


def asked(counts: SharedRows) -> dict[str, float]:
    """Requests by protocol, route, method and status."""
    prefix = meters.REQUESTS.name + meters.SEPARATOR
    [row] = counts.read()
    return {name.removeprefix(prefix).replace("\0", " "): value for name, value in row.items() if name.startswith(prefix) and value}


def count(counts: SharedRows, *name: str) -> float:
    return counts.read()[0].get(meters.SEPARATOR.join(name), 0.0)


async def ask(
    app: App, path: str = "/a.narinfo", method: str = "GET", body: tuple[bytes, ...] = (b"",), **headers: str
) -> list[Event]:
    events: list[Event] = []
    pieces = list(body)

    async def receive() -> Event:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(event: Event) -> None:
        events.append(event)

    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": fields}, receive, send)
    return events


def field(events: list[Event], name: bytes) -> bytes | None:
    return dict(events[0]["headers"]).get(name)


async def answers(_scope: Event, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": ((b"a", b"b"),)})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    await send({"type": "http.response.body", "body": b"de"})


async def takes_all(_scope: Event, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body"})


def grpc(status: bytes, *, trailers_only: bool = False) -> App:
    async def app(_scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        fields = [(b"grpc-status", status), (b"grpc-message", b"")]
        if trailers_only:
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"12345", "more_body": False})
        await send({"type": "http.response.trailers", "headers": fields})

    return app


async def test_requests_are_counted(counts: SharedRows) -> None:
    app = ObservedRequests(answers, {GRPC})
    for _ in range(3):
        await ask(app)
    await ask(ObservedRequests(takes_all, {GRPC}), "/nar/x.nar", "PUT", (b"123", b"45", b""))
    assert asked(counts) == {"http narinfo GET 200": 3, "http nar PUT 201": 1}
    assert count(counts, meters.BYTES_OUT.name, "http", "narinfo") == 15
    assert count(counts, meters.BYTES_IN.name, "http", "nar") == 5
    assert count(counts, meters.IN_FLIGHT.name) == 0


async def test_calls_have_statuses_of_grpc(counts: SharedRows) -> None:
    for status, times in ((b"0", 2), (b"5", 1), (b"99", 1), (b"x", 1)):
        for _ in range(times):
            await ask(ObservedRequests(grpc(status), {GRPC}), GRPC, "POST")
    await ask(ObservedRequests(grpc(b"7", trailers_only=True), {GRPC}), GRPC, "POST")
    name = f"grpc {GRPC[1:]} POST"
    assert asked(counts) == {f"{name} OK": 2, f"{name} NOT_FOUND": 1, f"{name} UNKNOWN": 2, f"{name} PERMISSION_DENIED": 1}


async def test_a_request_is_counted_before_its_answer_is_seen_to_end(counts: SharedRows) -> None:
    seen: list[dict[str, float]] = []

    async def send(event: Event) -> None:
        if event["type"] == "http.response.body" and not event.get("more_body"):
            seen.append(asked(counts))

    async def receive() -> Event:
        raise AssertionError

    await ObservedRequests(answers, ())({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
    assert seen == [{"http other GET 200": 1}]


async def test_answers_that_break_off_are_told_from_others(counts: SharedRows) -> None:
    async def breaks(_scope: Event, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(ObservedRequests(breaks, ()))

    async def stays(_scope: Event, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(ask(ObservedRequests(stays, ())))
    await asyncio.sleep(0)
    assert count(counts, meters.IN_FLIGHT.name) == 1
    task.cancel()
    await asyncio.wait({task})
    assert count(counts, meters.IN_FLIGHT.name) == 0
    assert asked(counts) == {"http narinfo GET aborted": 2}
    assert count(counts, meters.BYTES_OUT.name, "http", "narinfo") == 3


@pytest.mark.parametrize("given", ["abc", "0123-4567:89_a.b/c+d=@", "x" * 128])
async def test_an_id_is_taken_and_given_back(given: str) -> None:
    assert field(await ask(ObservedRequests(answers, ()), x_request_id=given), b"x-request-id") == given.encode()


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", 'a"b', "a\nb", "ä", "a;b"])
async def test_an_odd_id_is_not_taken(given: str) -> None:
    assert field(await ask(ObservedRequests(answers, ()), x_request_id=given), b"x-request-id") is None
    made = field(await ask(ObservedRequests(answers, (), lambda _scope, _exchange: None), x_request_id=given), b"x-request-id")
    assert made
    assert made != given.encode()


async def test_who_needs_an_id_makes_one() -> None:
    async def fails(scope: Event, receive: Receive, send: Send) -> None:
        noted = notes.current.get()
        assert noted is not None
        made.append(noted.id)
        await answers(scope, receive, send)

    made: list[str] = []
    app = ObservedRequests(fails, ())
    events = [await ask(app), await ask(app)]
    assert [field(each, b"x-request-id") for each in events] == [each.encode() for each in made]
    assert len(set(made)) == 2


async def test_notes_belong_to_their_request() -> None:
    told: list[tuple[str, Exchange]] = []
    barrier = asyncio.Barrier(3)

    async def app(scope: Event, receive: Receive, send: Send) -> None:
        await barrier.wait()

        async def deep_inside() -> None:
            notes.note("pushed", scope["path"])

        await asyncio.create_task(deep_inside())
        notes.note("pushed", "more")
        await barrier.wait()
        set_grant(scope, Grant(Scope.PUSH, "ci"))
        await answers(scope, receive, send)

    observed = ObservedRequests(app, (), lambda scope, exchange: told.append((scope["path"], exchange)))
    await asyncio.gather(*(ask(observed, path) for path in ("/a", "/b", "/c")))
    assert notes.current.get() is None
    notes.note("pushed", "outside of any request")
    assert sorted(path for path, _ in told) == ["/a", "/b", "/c"]
    for path, exchange in told:
        assert exchange.done == {"pushed": (path, 2)}
        assert exchange.client == "ci"
        assert (exchange.outcome, exchange.sent) == ("200", 5)
        assert exchange.seconds > 0


async def test_the_name_of_a_client_comes_from_an_outer_layer_too() -> None:
    told: list[str] = []

    def log(_scope: Event, exchange: Exchange) -> None:
        told.append(exchange.client)

    observed = ObservedRequests(answers, (), log)

    async def outer(scope: Event, receive: Receive, send: Send) -> None:
        set_grant(scope, Grant(Scope.PULL, "reader"))
        await observed(scope, receive, send)

    await ask(outer)
    await ask(observed)
    assert told == ["reader", ""]


async def test_other_scopes_pass() -> None:
    passed: list[Any] = []

    async def app(scope: Event, _receive: Receive, _send: Send) -> None:
        passed.append(scope)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    await ObservedRequests(app, ())({"type": "websocket"}, nothing, nothing)
    assert passed == [{"type": "websocket"}]

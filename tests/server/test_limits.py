"""What one client may do at a worker: who the client is, who waits, who is refused, and how fast bytes move."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tvix_store.asgi import App, Event, Receive, Send, address_of, set_grant
from tvix_store.errors import InvalidError
from tvix_store.model.grant import Grant, Scope
from tvix_store.server import limits
from tvix_store.server.forwarded import Forwarded
from tvix_store.server.limits import ClientLimits, Limits, Pace
from tvix_store.traffic import Client

PUT = "/tvix.castore.v1.BlobService/Put"


def request(address: str = "10.0.0.1", method: str = "GET", path: str = "/x", headers: Mapping[str, str] | None = None) -> Event:
    fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    client = (address, 1234) if address else None
    return {"type": "http", "method": method, "path": path, "client": client, "headers": fields, "http_version": "1.1"}


class Held:
    """An application whose requests last until they are released; who is in it, by address."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Event, _receive: Receive, send: Send) -> None:
        self.inside.append(address_of(scope))
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Clients:
    """Sends requests, and keeps the statuses of the answers."""

    def __init__(self, app: App, limits: Limits, writing: frozenset[str] = frozenset({PUT})) -> None:
        self.hung_up: list[Client] = []
        self.layer = ClientLimits(app, limits, writing, self.hung_up.append)
        self.statuses: list[int] = []
        self.fields: list[tuple[bytes, bytes]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def send(self, scope: Event) -> asyncio.Task[None]:
        async def receive() -> Event:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(event: Event) -> None:
            if event["type"] == "http.response.start":
                self.statuses.append(event["status"])
                self.fields += event["headers"]

        self.tasks.append(asyncio.ensure_future(self.layer(scope, receive, send)))
        return self.tasks[-1]

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_requests_beyond_the_limit_wait_for_those_of_the_same_client_alone() -> None:
    app = Held()
    clients = Clients(app, Limits(requests=2))
    for _ in range(5):
        clients.send(request("10.0.0.1"))
    clients.send(request("10.0.0.2"))
    await clients.settled()
    assert app.inside == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
    app.release.set()
    await asyncio.gather(*clients.tasks)
    assert clients.statuses == [200] * 6


async def test_uploads_that_wait_keep_no_lookup_waiting() -> None:
    app = Held()
    clients = Clients(app, Limits(requests=2, uploads=1))
    for _ in range(3):
        clients.send(request(method="PUT"))
    clients.send(request(method="POST", path=PUT))
    clients.send(request(method="POST", path=f"/rpc/v1{PUT}"))
    clients.send(request())
    await clients.settled()
    assert len(app.inside) == 2  # one of the uploads, and the lookup
    app.release.set()
    await asyncio.gather(*clients.tasks)
    assert clients.statuses == [200] * 6


@pytest.mark.parametrize(("method", "status"), [("GET", 429), ("HEAD", 429), ("POST", 429), ("PUT", 413)])
async def test_a_request_that_waits_for_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, method: str, status: int) -> None:
    """A PUT gets another status: Nix before 2.33 hangs when it is to try again."""
    monkeypatch.setattr(limits, "_PATIENCE", 0.01)
    monkeypatch.setattr(limits, "_UPLOAD_PATIENCE", 0.01)
    app = Held()
    clients = Clients(app, Limits(requests=1, uploads=1))
    clients.send(request(method=method))
    await clients.settled()
    await clients.send(request(method=method))
    assert clients.statuses == [status]
    assert (b"retry-after", b"5") in clients.fields
    app.release.set()
    await asyncio.gather(*clients.tasks)
    await clients.send(request(method=method))
    assert clients.statuses == [status, 200, 200]


async def test_not_more_requests_wait_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAITING", 3)
    app = Held()
    clients = Clients(app, Limits(requests=1))
    for _ in range(6):
        clients.send(request())
    await clients.settled()
    assert clients.statuses == [429, 429]
    app.release.set()
    await asyncio.gather(*clients.tasks)
    assert sorted(clients.statuses) == [200] * 4 + [429] * 2


async def test_grpc_is_refused_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAITING", 0)
    app = Held()
    clients = Clients(app, Limits(requests=1))
    call = {**request(method="POST", path=PUT, headers={"content-type": "application/grpc"}), "http_version": "2"}
    clients.send(call)
    await clients.settled()
    await clients.send(call)
    assert (b"grpc-status", b"8") in clients.fields
    app.release.set()
    await asyncio.gather(*clients.tasks)


async def test_a_client_that_goes_away_while_it_waits_leaves_its_place_to_others() -> None:
    app = Held()
    clients = Clients(app, Limits(requests=1))
    clients.send(request())
    await clients.settled()
    waiting = clients.send(request())
    await clients.settled()
    waiting.cancel()
    await clients.settled()
    app.release.set()
    await clients.send(request())
    assert clients.statuses == [200, 200]


def with_grant(scope: Event, grant: Grant) -> Event:
    set_grant(scope, grant)
    return scope


def with_certificate(scope: Event, name: str) -> Event:
    return {**scope, "extensions": {"tls": {"client_cert_name": name}}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (request("10.0.0.1"), request("10.0.0.1"), True),
        (request("10.0.0.1"), request("10.0.0.2"), False),
        (request("::ffff:10.0.0.1"), request("::ffff:10.0.0.2"), False),  # by a socket for both IPv6 and IPv4
        (request("::ffff:10.0.0.1"), request("10.0.0.1"), True),
        (request("2001:db8::1"), request("2001:db8::ffff:1"), True),
        (request("2001:db8:0:1::1"), request("2001:db8:0:2::1"), False),
        (with_grant(request("10.0.0.1"), Grant(Scope.PUSH, "ci")), with_grant(request("10.0.0.2"), Grant(Scope.PUSH, "ci")), True),
        (with_grant(request("10.0.0.1"), Grant(Scope.PUSH, "ci")), request("10.0.0.1"), False),
        (with_certificate(request("10.0.0.1"), "CN=a"), with_certificate(request("10.0.0.2"), "CN=a"), True),
        (with_certificate(request("10.0.0.1"), "CN=a"), with_certificate(request("10.0.0.1"), "CN=b"), False),
        (with_grant(request("10.0.0.1"), Grant(Scope.PULL, "CN=a")), with_certificate(request("10.0.0.1"), "CN=a"), False),
        (request(""), request(""), False),  # Unix sockets are not limited
        (request(path="/grpc.health.v1.Health/Watch"), request(), False),
    ],
)
async def test_who_is_one_client(one: Event, other: Event, same: bool) -> None:
    app = Held()
    clients = Clients(app, Limits(requests=1))
    clients.send(one)
    clients.send(other)
    await clients.settled()
    assert len(app.inside) == (1 if same else 2)
    app.release.set()
    await asyncio.gather(*clients.tasks)


async def test_many_thousand_addresses_take_bounded_memory() -> None:
    async def app(scope: Event, receive: Receive, send: Send) -> None:
        pass

    clients = Clients(app, Limits(requests=1))
    for number in range(20_000):
        await clients.send(request(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
        clients.tasks.clear()
    assert len(clients.layer._clients) <= 10_000


async def test_a_client_that_is_still_there_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_REMEMBERED", 2)
    app = Held()
    clients = Clients(app, Limits(requests=1))
    for number in range(5):
        clients.send(request(f"10.0.0.{number}"))
    await clients.settled()
    clients.send(request("10.0.0.0"))
    await clients.settled()
    assert len(app.inside) == 5
    app.release.set()
    await asyncio.gather(*clients.tasks)


async def test_bytes_move_at_the_rate_and_transfers_of_a_client_share_it() -> None:
    pace = Pace(1_000_000)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def transfer() -> None:
        for _ in range(5):
            await pace.move(100_000)

    await asyncio.gather(transfer(), transfer())
    took = loop.time() - began
    assert 0.7 < took < 5  # 1 s for a MB, a quarter of which is free after a rest


async def test_no_piece_is_held_back_for_so_long_that_clocks_take_the_client_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LONGEST", 0.05)
    pace = Pace(1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(5):
        await pace.move(1_000_000)
    assert loop.time() - began < 2


@pytest.mark.parametrize("bad", [{"requests": 0}, {"uploads": 0}, {"rate": 1000}, {"requests": -1}])
def test_limits_that_let_nobody_in_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        Limits(**bad)


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("192.0.2.9", "192.0.2.7", "192.0.2.9"),  # a stranger says so
        ("10.0.0.1", "1.1.1.1, 192.0.2.7", "192.0.2.7"),  # the client says so, and the proxy adds what it sees
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "192.0.2.7:5000", "192.0.2.7"),
        ("10.0.0.1", "[2001:db8::1]:5000", "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("10.0.0.1", "192.0.2.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("", "192.0.2.7", "192.0.2.7"),
        ("fd00::1", "192.0.2.7", "fd00::1"),
    ],
)
async def test_a_trusted_proxy_tells_the_address(client: str, forwarded: str | None, address: str) -> None:
    seen: list[str] = []

    async def app(scope: Event, _receive: Receive, _send: Send) -> None:
        seen.append(address_of(scope))

    async def nothing(*_: object) -> Any:
        pass

    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    await Forwarded(app, ["10.0.0.0/8", "unix"])(request(client, headers=headers), nothing, nothing)
    assert seen == [address]


def test_a_proxy_must_be_an_address() -> None:
    with pytest.raises(InvalidError, match=r"not a proxy: 'proxy\.example'"):
        Forwarded(Held(), ["proxy.example"])

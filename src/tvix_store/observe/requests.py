"""ObservedRequests: the outermost ASGI layer. It measures each request, and gives it an id and notes for its lines in the log."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Container
from math import inf
from time import perf_counter

from tvix_store.asgi import App, Event, Receive, Send, grant_of
from tvix_store.observe.routes import Route, route_of
from tvix_store.protocol.status import Status
from tvix_store.telemetry import meters, notes
from tvix_store.telemetry.notes import Notes

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""The ids that are taken from clients. Others could forge lines of a log."""
_FIELD = b"x-request-id"
_ABORTED = "aborted"
"""The outcome of a request whose answer did not come to its end: the client went away, or the answer broke off."""
_NO_BODY = ("GET", "HEAD")


class Exchange(Notes):
    """A request and its answer, on their way through this layer.

    came: Bytes of the body of the request.
    sent: Bytes of the body of the answer.
    seconds: Time to the end of the answer.
    outcome: The status as metrics and the log name it: that of gRPC where there is one.
    """

    came: int = 0
    sent: int = 0
    seconds: float = 0.0
    outcome: str = ""
    _status: int = 0
    _has_trailers: bool = False

    def __init__(self, tally: Tally, request_id: str, receive: Receive, send: Send) -> None:
        if request_id:
            self._id = request_id
        self._tally = tally
        self._receive = receive
        self._send = send
        self._begun = perf_counter()

    @property
    def route(self) -> Route:
        return self._tally.route

    async def receive(self) -> Event:
        event = await self._receive()
        body = event.get("body")
        if body:
            self.came += len(body)
        return event

    def send(self, event: Event) -> Awaitable[None]:
        kind = event["type"]
        if kind == "http.response.body":
            body = event.get("body")
            if body:
                self.sent += len(body)
            if not self._has_trailers and not event.get("more_body") and not self.outcome:
                self._end()
        elif kind == "http.response.start":
            self._status = event["status"]
            if self._tally.is_grpc:
                self._has_trailers = bool(event.get("trailers"))
                if not self._has_trailers:
                    self._look_for_status(event)
            if self._id:
                event = {**event, "headers": [*event["headers"], (_FIELD, self.id.encode())]}
        elif kind == "http.response.trailers":
            self._look_for_status(event)
            if not self.outcome:
                self._end()
        return self._send(event)

    def close(self) -> None:
        """The application is done with it."""
        if not self.outcome:
            self._status = 0
            self._end()

    def _end(self) -> None:
        """Count it, before the client can see the end: who has all answers, and then asks for the metrics, finds all counted."""
        self.seconds = perf_counter() - self._begun
        if self._status == 200 and not self.failed:
            self.outcome = self._tally.well
        else:
            self.outcome = self.failed or str(self._status) if self._status else _ABORTED
        self._tally.count(self)

    def _look_for_status(self, event: Event) -> None:
        for name, value in event["headers"]:
            if name == b"grpc-status" and value != b"0":
                self.failed = self.failed or _grpc_status(value)


class ObservedRequests:
    """Measures each request to `app`.

    calls: Paths of all gRPC methods.
    log: Is told of each request at its end, with its scope. None where nobody wants to know. With it, all requests have an id, and
        else those that came with one, or for which a line was logged before their answer began.
    """

    def __init__(self, app: App, calls: Container[str], log: Callable[[Event, Exchange], None] | None = None) -> None:
        self._app = app
        self._calls = calls
        self._log = log
        row = meters.current_row()
        self._values = row.values
        self._in_flight = row.position(meters.IN_FLIGHT.name)
        self._tallies: dict[Route, Tally] = {}

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = route_of(scope, self._calls)
        tally = self._tallies.get(route)
        if tally is None:
            tally = self._tallies[route] = Tally(route)
        exchange = Exchange(tally, _given_id(scope), receive, send)
        if self._log is not None:
            exchange.need_id()
        before = notes.current.set(exchange)
        self._values[self._in_flight] += 1.0
        try:
            await self._app(scope, receive if route.method in _NO_BODY else exchange.receive, exchange.send)
        finally:
            self._values[self._in_flight] -= 1.0
            notes.current.reset(before)
            exchange.close()
            if self._log is not None:
                exchange.client = exchange.client or grant_of(scope).name
                self._log(scope, exchange)


class Tally:
    """The counts of one route, in the row of this process.

    All of a request is counted in one place, at positions that are looked up once. With a `Series` for each number it took twice as
    long.
    """

    __slots__ = (
        "_bounds",
        "_buckets",
        "_by_outcome",
        "_bytes_in",
        "_bytes_out",
        "_row",
        "_seconds",
        "_values",
        "is_grpc",
        "route",
        "well",
    )

    def __init__(self, route: Route) -> None:
        row = meters.current_row()
        labels = (route.protocol, route.name)
        seconds = meters.REQUEST_SECONDS
        self.route = route
        self.is_grpc = route.protocol == "grpc"
        self.well = "OK" if self.is_grpc else "200"
        self._row = row
        self._values = row.values
        self._bounds = seconds.bounds
        self._buckets = [row.position(meters.entry(seconds, *labels, str(bound))) for bound in (*seconds.bounds, inf)]
        self._seconds = row.position(meters.entry(seconds, *labels, "sum"))
        self._bytes_in = row.position(meters.entry(meters.BYTES_IN, *labels))
        self._bytes_out = row.position(meters.entry(meters.BYTES_OUT, *labels))
        self._by_outcome: dict[str, int] = {}

    def count(self, exchange: Exchange) -> None:
        outcome, seconds, values = exchange.outcome, exchange.seconds, self._values
        position = self._by_outcome.get(outcome)
        if position is None:
            name = meters.entry(meters.REQUESTS, self.route.protocol, self.route.name, self.route.method, outcome)
            position = self._by_outcome[outcome] = self._row.position(name)
        values[position] += 1.0
        values[self._buckets[bisect_left(self._bounds, seconds)]] += 1.0
        values[self._seconds] += seconds
        if exchange.sent:
            values[self._bytes_out] += exchange.sent
        if exchange.came:
            values[self._bytes_in] += exchange.came


def _given_id(scope: Event) -> str:
    """The id that a client has given to its request; "" for one that gave none, or one that is too long, or odd."""
    value: bytes | None = dict(scope["headers"]).get(_FIELD)  # a loop over the fields takes twice as long
    return value.decode() if value is not None and _ID.fullmatch(value) else ""


def _grpc_status(value: bytes) -> str:
    try:
        return Status(int(value)).name
    except ValueError:
        return Status.UNKNOWN.name

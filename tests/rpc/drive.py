"""Drives an ASGI application without a transport: what a test says as a request, and what it wants to know of the response."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from tvix_store.asgi import App, Event
from tvix_store.rpc.framing import Frames
from tvix_store.rpc.status import Status

GRPC = (b"content-type", b"application/grpc")


@dataclass
class Outcome:
    """What came back: `events` as they were sent, and what they mean."""

    events: list[Event] = field(default_factory=list)

    @property
    def http_status(self) -> int:
        return int(self.events[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.events[0]["headers"])

    @property
    def trailers(self) -> dict[bytes, bytes]:
        """The trailers; in a response of trailers only, the header fields."""
        return dict(self.events[-1]["headers"] if "headers" in self.events[-1] else self.events[0]["headers"])

    @property
    def status(self) -> Status:
        return Status(int(self.trailers[b"grpc-status"]))

    @property
    def message(self) -> str:
        return unquote(self.trailers[b"grpc-message"].decode())

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.events)

    @property
    def answers(self) -> list[bytes]:
        frames = Frames(1 << 30, self.headers.get(b"grpc-encoding", b"identity"))
        answers = list(frames.feed(self.body))
        frames.finish()
        return answers


async def request(
    app: App,
    path: str,
    pieces: Iterable[bytes] = (),
    *,
    headers: Iterable[tuple[bytes, bytes]] = (GRPC,),
    method: str = "POST",
    query: bytes = b"",
    http_version: str = "2",
    disconnects: bool = False,
) -> Outcome:
    """Send `pieces` of a body, one event each, and run the application to its end.

    `disconnects`: the caller goes away after them.
    """
    outcome = Outcome()
    events: list[Event] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if disconnects:
        events.append({"type": "http.disconnect"})
    elif events:
        del events[-1]["more_body"]
    else:
        events.append({"type": "http.request"})
    events.reverse()

    async def receive() -> Event:
        return events.pop()

    async def send(event: Event) -> None:
        outcome.events.append(event)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers)}
    await app({**scope, "query_string": query, "http_version": http_version}, receive, send)
    return outcome

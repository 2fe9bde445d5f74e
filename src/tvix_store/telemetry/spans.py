"""Spans: parts of the work on a request, for traces. Without a tracer, nothing happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Span(Protocol):
    """A part of the work that has begun."""

    def end(self, outcome: str) -> None:
        """The part is over."""
        ...


class Tracer(Protocol):
    """Who records spans."""

    def begin(self, name: str, peer: str) -> Span:
        """A part begins that another server does, `peer`, for the request that this task works on."""
        ...

    def outgoing(self) -> Sequence[tuple[str, str]]:
        """The header fields by which another server's spans become part of this task's trace."""
        ...


class _NoSpan:
    def end(self, outcome: str) -> None:
        pass


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Record the spans of this process with `tracer` from now on."""
    global _tracer  # noqa: PLW0603 - a process has one, as it has one log
    _tracer = tracer


def begin(name: str, peer: str) -> Span:
    """As `Tracer.begin`."""
    return _NO_SPAN if _tracer is None else _tracer.begin(name, peer)


def outgoing() -> Sequence[tuple[str, str]]:
    """As `Tracer.outgoing`; nothing without a tracer."""
    return () if _tracer is None else _tracer.outgoing()

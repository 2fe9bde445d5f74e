"""Rows of the result: what was measured, against what, and what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Unit:
    """How a number is written, and whether a larger one is better."""

    symbol: str
    digits: int
    more_is_better: bool = False

    def best(self, values: Sequence[float]) -> float:
        return max(values) if self.more_is_better else min(values)

    def show(self, value: float) -> str:
        return f"{value:,.{self.digits}f} {self.symbol}"


SECONDS = Unit("s", 2)
MILLISECONDS = Unit("ms", 2)
MICROSECONDS = Unit("µs", 0)
MEGABYTES = Unit("MB", 1)
GIGABYTES_A_SECOND = Unit("GB/s", 2, more_is_better=True)
CALLS_A_SECOND = Unit("/s", 0, more_is_better=True)
TIMES = Unit("x", 2)
UNITS = {unit.symbol: unit for unit in (SECONDS, MILLISECONDS, MICROSECONDS, MEGABYTES, GIGABYTES_A_SECOND, CALLS_A_SECOND, TIMES)}
"""All units by their symbols."""


@dataclass(frozen=True, slots=True)
class Series:
    """What one program did: a value of every round."""

    by: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound: of the ratio of ours to the peer's where there is a peer, else of our own figure."""

    sense: Literal["at most", "at least", "under"]
    bound: float

    def is_met_by(self, value: float) -> bool:
        match self.sense:
            case "at most":
                return value <= self.bound
            case "at least":
                return value >= self.bound
            case "under":
                return value < self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. Values of the same position are of the same round."""

    work: str
    unit: Unit
    ours: Series
    peer: Series | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios: what slowed down a whole round slowed down both."""
        if self.peer is None:
            return None
        return median(ours / peers for ours, peers in zip(self.ours.values, self.peer.values, strict=True))

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        ratio = self.ratio
        return self.target.is_met_by(median(self.ours.values) if ratio is None else ratio)

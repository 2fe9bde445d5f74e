"""Progress in words, as many as there is room for: `tree [####......]  42 %  1.20 GiB of 2.86 GiB  123 MiB/s  14 s left`."""

from __future__ import annotations

from dataclasses import dataclass

from tvix_store.cli.sizes import counted, human

_LABEL = 24
"""The most columns of a label on a terminal."""
_LEAST_BAR, _MOST_BAR = 10, 30
"""The columns inside the bar."""
_AROUND_BAR = 4
_BAR_FROM = 70
"""The columns of a terminal from which on there is a bar: facts say more."""


@dataclass(slots=True)
class Progress:
    """Work in progress.

    total: How much there is to do; None where nobody knows.
    done: How much is done; bytes, if `in_bytes`.
    count: How many things are done, of `things` in all where that is told. `counted` names one of them.
    rate: How much was done in a second of late.
    """

    label: str
    total: int | None = None
    done: int = 0
    count: int = 0
    counted: str = "file"
    things: int | None = None
    rate: float = 0
    in_bytes: bool = True

    @property
    def part(self) -> float | None:
        """Which part is done, from 0 to 1."""
        return min(self.done / self.total, 1) if self.total else None

    @property
    def counts(self) -> str:
        """`1 file`, or `1 of 5 paths`."""
        return counted(self.count, self.counted) if self.things is None else f"{self.count} of {counted(self.things, self.counted)}"


def plain_line(progress: Progress) -> str:
    """All that is known, for a log."""
    return f"tvix-store: {progress.label}: {_joined(', ', _facts(progress))}".removesuffix(": ")


def terminal_line(progress: Progress, columns: int) -> str:
    """The most important facts, in less than so many columns: a line that is full would begin the next one."""
    facts = _facts(progress)
    label = _shortened(progress.label, min(_LABEL, max(columns // 3, 8)))
    part = progress.part if columns >= _BAR_FROM else None
    least = 0 if part is None else _LEAST_BAR + _AROUND_BAR
    while facts and len(f"{label}  {_joined('  ', facts)}") + least >= columns:
        facts.remove(max(facts))
    told = _joined("  ", facts)
    line = f"{label}  {told}".rstrip()
    if part is None:
        return line[: max(columns - 1, 0)]
    room = min(columns - len(line) - _AROUND_BAR, _MOST_BAR)
    full = round(part * room)
    return f"{label} [{'#' * full}{'.' * (room - full)}]  {told}"


def span(seconds: float) -> str:
    """A span of time, roughly: `59 s`, `12 min`, `3 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _facts(progress: Progress) -> list[tuple[int, str]]:
    """What there is to tell, in order, each behind a number: the highest goes first where there is no room."""
    facts: list[tuple[int, str]] = []
    if progress.part is not None:
        facts.append((0, f"{progress.part:4.0%}".replace("%", " %").strip()))
    if progress.in_bytes and progress.done:
        facts.append((1, human(progress.done)))
        if progress.total:
            facts.append((4, f"of {human(progress.total)}"))
        if progress.rate:
            facts.append((3, f"{human(round(progress.rate))}/s"))
    if progress.total and progress.rate and progress.done < progress.total:
        facts.append((2, f"{span((progress.total - progress.done) / progress.rate)} left"))
    if progress.count:
        facts.append((5, progress.counts))
    return facts


def _joined(separator: str, facts: list[tuple[int, str]]) -> str:
    """The facts with a separator between, but for the total, which belongs to the size before it."""
    return separator.join(text for _, text in facts).replace(f"{separator}of ", " of ")


def _shortened(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 3] + "..."

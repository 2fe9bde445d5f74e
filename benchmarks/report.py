"""The result as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.figures import TIMES, Row, Series, Unit

_HEADINGS = ("work", "ours: median (best)", "peer", "peer's: median (best)", "ratio", "target", "met")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, in columns."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    judged = row.unit if row.peer is None else TIMES
    return (
        row.work,
        _median_and_best(row.ours, row.unit),
        row.peer.by if row.peer else "",
        _median_and_best(row.peer, row.unit) if row.peer else "",
        "" if row.ratio is None else TIMES.show(row.ratio),
        f"{row.target.sense} {judged.show(row.target.bound)}" if row.target else "",
        {None: "", True: "yes", False: "NO"}[row.met],
    )


def _median_and_best(series: Series, unit: Unit) -> str:
    return f"{unit.show(median(series.values))} ({unit.show(unit.best(series.values))})"


def to_json(rows: Sequence[Row], machine: Mapping[str, object]) -> dict[str, object]:
    """All that was measured, every round of it."""
    return {
        "machine": machine,
        "rows": [
            {
                "work": row.work,
                "unit": row.unit.symbol,
                "ours": _series_to_json(row.ours, row.unit),
                "peer": row.peer and _series_to_json(row.peer, row.unit),
                "ratio": row.ratio,
                "target": row.target and {"sense": row.target.sense, "bound": row.target.bound},
                "met": row.met,
            }
            for row in rows
        ],
    }


def _series_to_json(series: Series, unit: Unit) -> dict[str, object]:
    return {"by": series.by, "median": median(series.values), "best": unit.best(series.values), "values": list(series.values)}

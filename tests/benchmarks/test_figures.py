from __future__ import annotations

import pytest

from benchmarks.figures import CALLS_A_SECOND, SECONDS, Row, Series, Target, Unit


def test_a_slow_round_slows_both_sides_and_leaves_the_ratio() -> None:
    row = Row("work", SECONDS, Series("us", [1, 10, 2]), Series("them", [2, 20, 2]), Target("at most", 0.5))
    assert row.ratio == 0.5
    assert row.met


def test_without_a_peer_our_own_median_is_judged() -> None:
    row = Row("work", CALLS_A_SECOND, Series("us", [5, 100, 6]), target=Target("at least", 7))
    assert row.ratio is None
    assert row.met is False


def test_without_a_target_nothing_is_judged() -> None:
    assert Row("work", SECONDS, Series("us", [1])).met is None


@pytest.mark.parametrize(("unit", "best"), [(SECONDS, 1), (CALLS_A_SECOND, 3)])
def test_the_best_time_is_the_shortest_and_the_best_rate_the_highest(unit: Unit, best: float) -> None:
    assert unit.best([2, 1, 3]) == best

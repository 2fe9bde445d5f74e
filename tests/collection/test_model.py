"""The protocol of collection loses nothing, in any state of small worlds; and each of its rules is needed for that."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.collection.clients import IDLE as IDLE_CLIENT
from tests.collection.clients import one_client
from tests.collection.collector import IDLE, run
from tests.collection.model import NOTHING, Client, Rule, State, World
from tests.collection.search import Found, search
from tests.collection.worlds import WORLDS

PAGE = Path(__file__).parents[2] / "docs/design/collection.md"

BREACHES = [
    (Rule.W1, "answers about a chunk", "I6"),
    (Rule.W1, "path of a chunk", "I3"),
    (Rule.W2, "answers about a list", "I2"),
    (Rule.W2_TAKES_BACK, "answers about a list", "I2"),
    (Rule.R1, "answers about a chunk", "I6"),
    (Rule.R1, "path of a chunk", "I3"),
    (Rule.R1, "record of a chunk", "I1"),
    (Rule.R1_CHUNKS, "answers about a list", "I2"),
    (Rule.F1, "path of a chunk", "I3"),
    (Rule.DROP_COUNTS, "path of a chunk", "I3"),
    (Rule.PUBLICATION_COUNTS, "path of a chunk", "I3"),
    (Rule.F2, "path of a chunk", "I1"),
    (Rule.F3_LOOK, "path elsewhere of a chunk", "I1"),
    (Rule.F3_LOOK, "record of a chunk", "I1"),
    (Rule.F3_LOCK, "path elsewhere of a chunk", "I1"),
    (Rule.F3_LOCK, "record of a chunk", "I1"),
    (Rule.MARK_FIRST, "path of a chunk", "I1"),
    (Rule.RESCUE_MARKED, "path of a chunk", "I1"),
    (Rule.RESCUE_LISTED, "answers about a list", "I2"),
    (Rule.DROP_PUBLISHED, "answers about a chunk", "I6"),
    (Rule.DROP_PUBLISHED, "record of a chunk", "I1"),
    (Rule.UNPUBLISH, "answers about a chunk", "I6"),
    (Rule.UNPUBLISH, "record of a chunk", "I1"),
    (Rule.FORGET_FACTS, "path of a chunk", "I3"),
    (Rule.ALONE, "answers about a list", "I2"),
    (Rule.ALONE, "path of a chunk", "I1"),
]
"""A rule that is left out, a world, and the invariant that breaks first."""


@cache
def everything_in(name: str) -> Found:
    return search(WORLDS[name])


def without(rule: Rule, name: str) -> Found:
    return search(replace(WORLDS[name], without=rule, collectors=2 if rule is Rule.ALONE else 1))


def test_each_rule_is_left_out_somewhere() -> None:
    assert {rule for rule, _, _ in BREACHES} == set(Rule) - {Rule.LISTS_FIRST}


@pytest.mark.parametrize("name", WORLDS)
def test_no_state_breaks_an_invariant(name: str) -> None:
    found = everything_in(name)
    assert found.breach is None, found.trace
    assert f"| {name} | {len(found.states):,} |" in PAGE.read_text()


@pytest.mark.parametrize(("rule", "name", "invariant"), BREACHES)
def test_a_rule_that_is_left_out_breaks_an_invariant(rule: Rule, name: str, invariant: str) -> None:
    found = without(rule, name)
    assert found.breach == invariant
    assert f"| {rule.value} | {name} | {invariant} | {len(found.trace)} |" in PAGE.read_text()


@pytest.mark.parametrize("name", ["answers about a list", "path of a list", "record of a list"])
def test_the_order_of_condemnation_loses_nothing(name: str) -> None:
    found = without(Rule.LISTS_FIRST, name)
    assert found.breach is None, found.trace


@pytest.mark.parametrize("name", WORLDS)
def test_a_run_reaches_its_end_from_every_crash(name: str) -> None:
    """Unless somebody holds the lock."""
    for state in {crashed(state) for state in everything_in(name).states}:
        waits = any(client.holds_lock for client in state.clients)
        assert (run(WORLDS[name], state) is None) is waits, state


@pytest.mark.parametrize("name", [name for name in WORLDS if "record" in name or "elsewhere" in name])
def test_who_holds_the_lock_gives_it_back(name: str) -> None:
    holding = {(state, each) for state in everything_in(name).states for each in state.clients if each.holds_lock}
    assert holding
    for state, client in holding:
        assert not last_of_lock(WORLDS[name], state, client).holds_lock


@pytest.mark.parametrize("name", WORLDS)
def test_what_nobody_needs_is_gone_after_two_runs(name: str) -> None:
    world = WORLDS[name]
    for state in {all_quiet(state) for state in everything_in(name).states}:
        once = run(world, state)
        assert once is not None
        twice = run(world, once)
        assert twice is not None
        assert (twice.live, twice.condemned) == (world.needed(state.rows), NOTHING), state


def crashed(state: State) -> State:
    """The collector is dead. What is told and promised decides nothing from here on."""
    return state._replace(collectors=(IDLE,), told=NOTHING, promised=NOTHING)


def all_quiet(state: State) -> State:
    """All are dead."""
    return crashed(state)._replace(clients=tuple(IDLE_CLIENT for _ in state.clients))


def last_of_lock(world: World, state: State, client: Client) -> Client:
    """What a client is after the few steps for which it may hold the lock, if it does not die."""
    for _ in range(len(world.below) + 1):
        _, state, client = next(one_client(world, state, client))
        if not client.holds_lock:
            break
    return client

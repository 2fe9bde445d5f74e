"""What a collector does. Each step is a transaction of its own, or a look at one table; it may die before each."""

from collections.abc import Iterator
from typing import TypeAlias

from tests.collection.clients import Steps
from tests.collection.model import NOTHING, Collector, Rule, State, World, is_list

OneCollector: TypeAlias = Iterator[tuple[str, State, Collector]]
IDLE = Collector()


def collector_steps(world: World, state: State) -> Steps:
    for place, collector in enumerate(state.collectors):
        if place and collector == state.collectors[place - 1]:
            continue  # collectors are alike, and sorted
        others = state.collectors[:place] + state.collectors[place + 1 :]
        if collector == IDLE and world.follows(Rule.ALONE) and any(each != IDLE for each in others):
            continue
        for name, after, following in one_collector(world, state, collector):
            yield f"a collector {name}", after._replace(collectors=tuple(sorted((*others, following))))
        if collector != IDLE:
            yield "a collector dies", state._replace(collectors=tuple(sorted((*others, IDLE))))


def one_collector(world: World, state: State, collector: Collector) -> OneCollector:
    """What follows, for one that does not die. Of several choices, the last is the one that collects most."""
    match collector.doing:
        case "nothing":
            yield "begins", state, Collector("marks" if world.follows(Rule.MARK_FIRST) else "drops")
        case "marks":
            yield mark(world, state, collector)
        case "rescues":
            yield rescue(world, state, collector)
        case "drops":
            yield drop(world, state, collector)
        case "condemns":
            yield from condemn(world, state, collector)
        case "publishes":
            if not (world.follows(Rule.F3_LOCK) and any(client.holds_lock for client in state.clients)):
                yield from publish(world, state, collector)


def mark(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    """Look for one root. All that it reaches is there (I1), so there are no holes in this model."""
    at = collector.at
    if at == len(world.roots):
        return "has marked", state, Collector("rescues", marked=collector.marked)
    if at in state.rows:
        return f"marks root {at}", state, collector._replace(at=at + 1, marked=(*collector.marked, at))
    return f"finds no root {at}", state, collector._replace(at=at + 1)


def rescue(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    content = list(world.below)[collector.at]
    is_marked = world.follows(Rule.RESCUE_MARKED) and content in world.needed(collector.marked)
    is_listed = world.follows(Rule.RESCUE_LISTED) and any(content in world.below[each] for each in state.live if is_list(each))
    after, name = state, "leaves"
    if content in state.condemned and (is_marked or is_listed):
        after, name = state._replace(live=state.live | {content}, condemned=state.condemned - {content}), "rescues"
    following = collector._replace(at=collector.at + 1)
    if following.at == len(world.below):
        following = Collector("drops" if world.follows(Rule.MARK_FIRST) else "condemns", marked=collector.marked)
    return f"{name} {content}", after, following


def drop(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    """Drop what is condemned. The grace is zero here, so nothing waits that is published."""
    following = Collector("condemns" if world.follows(Rule.MARK_FIRST) else "marks", marked=collector.marked)
    if not state.condemned or (not state.published and world.follows(Rule.DROP_PUBLISHED)):
        return "drops nothing", state, following
    after = state._replace(condemned=NOTHING)
    return "drops", count(after) if world.follows(Rule.DROP_COUNTS) else after, following


def condemn(world: World, state: State, collector: Collector) -> OneCollector:
    """Condemn one content that was not marked, or not: it may have been put since the mark began."""
    content = order(world)[collector.at]
    following = collector._replace(at=collector.at + 1)
    if following.at == len(world.below):
        following = Collector("publishes", marked=collector.marked)
    yield f"leaves {content}", state, following
    if content in state.live and content not in world.needed(collector.marked):
        published = state.published and not world.follows(Rule.UNPUBLISH)
        after = state._replace(live=state.live - {content}, condemned=state.condemned | {content}, published=published)
        yield f"condemns {content}", after, following


def order(world: World) -> list[str]:
    """The order in which content is condemned: lists and directories first, or chunks first."""
    return sorted(world.below, key=lambda content: (not world.below[content]) is world.follows(Rule.LISTS_FIRST))


def publish(world: World, state: State, collector: Collector) -> OneCollector:
    if not state.condemned:
        yield "has nothing to publish", state, IDLE
    after = state._replace(published=True, promised=NOTHING)
    if world.follows(Rule.FORGET_FACTS):
        after = after._replace(facts=after.facts & {world.roots[root].node for root in collector.marked})
    yield "publishes", count(after) if world.follows(Rule.PUBLICATION_COUNTS) else after, IDLE


def count(state: State) -> State:
    """Raise the counter."""
    return state._replace(clients=tuple(sorted(client._replace(noted=False) for client in state.clients)))


def run(world: World, state: State) -> State | None:
    """A whole run that collects all it may, while nobody else does anything. None: it waits for somebody who holds the lock."""
    collector = IDLE
    while True:
        choices = list(one_collector(world, state, collector))
        if not choices:
            return None
        _, state, collector = choices[-1]
        if collector == IDLE:
            return state

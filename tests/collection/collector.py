"""What a collector does: each step is a transaction of its own, and it may die before each."""

from collections.abc import Iterator

from tests.collection.clients import Steps, without_row
from tests.collection.model import NOTHING, Collector, Contents, Kind, Rule, State, World, is_chunk, is_list

IDLE = Collector()


def order(world: World) -> list[str]:
    """In which content is condemned."""
    kinds = (is_list, is_chunk) if world.follows(Rule.LISTS_FIRST) else (is_chunk, is_list)
    return sorted(world.below, key=lambda content: (not kinds[0](content), not kinds[1](content), content))


def marked(world: World, collector: Collector) -> Contents:
    return NOTHING.union(*(world.closures[world.roots[root].node] for root in collector.seen))


def collector_steps(world: World, state: State) -> Steps:
    for place, collector in enumerate(state.collectors):
        if place and collector == state.collectors[place - 1]:
            continue
        if collector == IDLE and world.follows(Rule.LOCK) and any(c != IDLE for c in state.collectors):
            continue
        for name, after, next_collector in one_collector(world, state, collector):
            others = list(after.collectors)
            others[place] = next_collector
            yield f"collector {place}: {name}", after._replace(collectors=tuple(sorted(others, key=sort_key)))


def sort_key(collector: Collector) -> tuple[str, int, int, list[int]]:
    return collector.doing, collector.at, collector.inside, sorted(collector.seen)


def one_collector(world: World, state: State, collector: Collector) -> Iterator[tuple[str, State, Collector]]:
    doing = collector.doing
    if doing == "nothing":
        yield "begins", state, Collector("marks" if world.follows(Rule.MARK_FIRST) else "drops")
        return
    yield "dies", state, IDLE
    if doing == "marks":
        yield mark(world, state, collector)
    elif doing == "rescues":
        yield rescue(world, state, collector)
    elif doing == "drops":
        yield drop(world, state, collector)
    elif doing == "condemns":
        yield from condemn(world, state, collector)
    else:
        yield publish(world, state, collector)


def mark(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    at, inside = collector.at, collector.inside
    if at == len(world.roots):
        return "has marked", state, Collector("rescues", seen=collector.seen)
    if at not in collector.seen:
        if at in state.rows:
            return f"finds root {at}", state, collector._replace(seen=collector.seen | {at})
        return f"finds no root {at}", state, collector._replace(at=at + 1)
    closure = world.closures[world.roots[at].node]
    content = closure[inside]
    if content not in state.live and content not in state.condemned and world.follows(Rule.HOLE):
        if world.confirms and world.roots[at].kind is not Kind.PATH and at not in state.acknowledged:
            after = without_row(state, at)
            return f"finds no {content}, and removes root {at}", after, collector._replace(at=at + 1, inside=0, seen=collector.seen - {at})
        return f"finds no {content}, and ends", state, IDLE
    if inside + 1 < len(closure):
        return f"marks {content}", state, collector._replace(inside=inside + 1)
    return f"marks {content}", state, collector._replace(at=at + 1, inside=0)


def rescue(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    contents = list(world.below)
    content = contents[collector.at]
    after = state
    wanted = (world.follows(Rule.RESCUE_MARKED) and content in marked(world, collector)) or (
        world.follows(Rule.RESCUE_LISTED) and any(content in world.below[each] for each in state.live if is_list(each))
    )
    if wanted and content in state.condemned:
        after = state._replace(live=state.live | {content}, condemned=state.condemned - {content})
    if collector.at + 1 < len(contents):
        return f"rescues {content} or not", after, collector._replace(at=collector.at + 1)
    following = "drops" if world.follows(Rule.MARK_FIRST) else "condemns"
    return f"rescues {content} or not", after, collector._replace(doing=following, at=0)


def drop(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    after = state
    if state.published or not world.follows(Rule.DROP_PUBLISHED):
        after = state._replace(condemned=NOTHING)
        if world.follows(Rule.DROP_COUNTS):
            after = count(after)
    following = "condemns" if world.follows(Rule.MARK_FIRST) else "marks"
    return "drops what is published", after, collector._replace(doing=following)


def condemn(world: World, state: State, collector: Collector) -> Iterator[tuple[str, State, Collector]]:
    contents = order(world)
    content = contents[collector.at]
    last = collector.at + 1 == len(contents)
    following = collector._replace(doing="publishes", at=0) if last else collector._replace(at=collector.at + 1)
    yield f"leaves {content}", state, following
    if content in state.live and content not in marked(world, collector):
        published = state.published and not world.follows(Rule.UNPUBLISH)
        after = state._replace(live=state.live - {content}, condemned=state.condemned | {content}, published=published)
        yield f"condemns {content}", after, following


def publish(world: World, state: State, collector: Collector) -> tuple[str, State, Collector]:
    after = state._replace(published=True, promised=NOTHING)
    if world.follows(Rule.FORGET_FACTS):
        after = after._replace(facts=state.facts & frozenset(world.roots[root].node for root in collector.seen))
    if world.follows(Rule.PUBLICATION_COUNTS):
        after = count(after)
    return "publishes", after, IDLE


def count(state: State) -> State:
    """The counter rises."""
    return state._replace(clients=tuple(sorted(client._replace(noted=False) for client in state.clients)))

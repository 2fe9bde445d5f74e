"""The states of the collection protocol, as `docs/design/collection.md` has it, and what must hold in each.

Content is named by letters: `R` and `S` are directories, `B` and `C` chunk lists, `x` and `y` chunks. The store's counter has no
number here: a client only asks whether it is what it noted, so each client has a flag that a rise of the counter puts out. So the
states are finite for any number of runs, and no bound is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

Contents = frozenset[str]
NOTHING: Contents = frozenset()


class Rule(Enum):
    """What may be left out of the protocol."""

    W1 = "writers do not see what is condemned"
    W2 = "a list is put in a transaction that sees its chunks"
    R1 = "what is found condemned is taken back before anybody relies on it"
    R1_CHUNKS = "a list is taken back with its chunks"
    F1 = "facts are remembered only if the counter is as noted"
    DROP_COUNTS = "a drop raises the counter"
    PUBLICATION_COUNTS = "a publication raises the counter"
    F2 = "a path info is put where its facts are seen"
    F3 = "facts are looked for again after a put elsewhere"
    F4 = "content is looked for after the put of a record"
    RESCUE_MARKED = "what is marked is rescued"
    RESCUE_LISTED = "what a live list names is rescued"
    MARK_FIRST = "the mark comes before the drop"
    DROP_PUBLISHED = "only published content is dropped"
    UNPUBLISH = "what is condemned anew makes all condemned content unpublished"
    FORGET_FACTS = "a publication drops the facts of what was not marked"
    LISTS_FIRST = "lists are condemned before chunks"
    HOLE = "a hole ends the run"
    LOCK = "one collector at a time"


class Kind(Enum):
    """Of a root: where it stands."""

    PATH = "a path info of this store"
    ELSEWHERE = "a path info of a named cache, in an environment of its own"
    RECORD = "a record that keeps content"


class Root(NamedTuple):
    kind: Kind
    node: str


class Client(NamedTuple):
    """`at` counts the content that it has seen; `noted`: the counter is as it was; `owns`: it has put the row, nobody since."""

    doing: str = "nothing"
    root: int = 0
    at: int = 0
    noted: bool = False
    placed: bool = False
    owns: bool = False


class Collector(NamedTuple):
    """`at` counts roots or content; `seen`: the roots that it has found; `inside`: how much of the root at hand is marked."""

    doing: str = "nothing"
    at: int = 0
    inside: int = 0
    seen: frozenset[int] = frozenset()


class State(NamedTuple):
    """Of all processes and tables. `rows` and `acknowledged` are numbers of roots."""

    live: Contents = NOTHING
    condemned: Contents = NOTHING
    published: bool = False
    facts: Contents = NOTHING
    rows: frozenset[int] = frozenset()
    acknowledged: frozenset[int] = frozenset()
    told: Contents = NOTHING
    promised: Contents = NOTHING
    clients: tuple[Client, ...] = ()
    collectors: tuple[Collector, ...] = ()


@dataclass(frozen=True)
class World:
    """What content there may be, and who works with it. `below`: what each list and directory names."""

    below: Mapping[str, str]
    roots: tuple[Root, ...] = ()
    clients: int = 1
    collectors: int = 1
    remembers: bool = False
    without: frozenset[Rule] = frozenset()
    confirms: bool = False
    closures: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for content in self.below:
            self.closures[content] = "".join(dict.fromkeys(self._walk(content)))

    def _walk(self, content: str) -> str:
        return content + "".join(self._walk(child) for child in self.below[content])

    def follows(self, rule: Rule) -> bool:
        return rule not in self.without

    def start(self) -> State:
        return State(clients=(Client(),) * self.clients, collectors=(Collector(),) * self.collectors)


def is_list(content: str) -> bool:
    return content in "BC"


def is_chunk(content: str) -> bool:
    return content in "xy"


def breach(world: World, state: State) -> str | None:
    """The invariant that the state breaks."""
    there = state.live | state.condemned
    if not state.rows >= state.acknowledged:
        return "I0: an acknowledged root is gone that no policy removed"
    for number in sorted(state.acknowledged):
        if not there.issuperset(world.closures[world.roots[number].node]):
            return "I1: content of an acknowledged root is gone"
    for content in state.live:
        if is_list(content) and not there.issuperset(world.below[content]):
            return "I2: a chunk of a live list is gone"
    for node in state.facts:
        closure = world.closures[node]
        if not there.issuperset(closure):
            return "I3: content of a root that has facts is gone"
        if state.published:
            kept = state.live.union(*(world.below[content] for content in state.live if is_list(content)))
            if not kept.issuperset(closure):
                return "I3: content of a root that has facts is published as condemned"
    if not there.issuperset(state.promised):
        return "I6: content is gone that somebody was told is there after it was published"
    return None

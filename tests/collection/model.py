"""The states of the collection protocol, as `docs/design/collection.md` has it, and what must hold in each.

Content is named by letters: `R` is a directory, `B` and `C` are chunk lists, `x` and `y` are chunks. The store's counter has no
number here. A client only asks whether the counter is as it was noted, so each client has a flag that a rise of the counter clears.
So there is a finite number of states, whatever the number of runs. A search of them needs no bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

Contents: TypeAlias = frozenset[str]
NOTHING: Contents = frozenset()


class Rule(Enum):
    """What a world may leave out of the protocol."""

    W1 = "a writer looks at live content alone"
    W2 = "a list is put in a transaction that sees its chunks"
    W2_TAKES_BACK = "that transaction takes condemned chunks back"
    R1 = "what was found condemned is taken back"
    R1_CHUNKS = "a list is taken back with its chunks"
    F1 = "facts are put only if the counter is as noted"
    DROP_COUNTS = "a drop raises the counter"
    PUBLICATION_COUNTS = "a publication raises the counter"
    F2 = "a path info is put in a transaction that sees the facts"
    F3_LOOK = "who puts a root elsewhere looks before, inside the lock"
    F3_LOCK = "a publication waits for those who put a root elsewhere"
    MARK_FIRST = "the mark comes before the drop"
    RESCUE_MARKED = "what is marked is rescued"
    RESCUE_LISTED = "a chunk that a live list names is rescued"
    DROP_PUBLISHED = "only published content is dropped"
    UNPUBLISH = "with the first condemnation, what is condemned counts as not published"
    FORGET_FACTS = "a publication drops the facts of roots that were not marked"
    ALONE = "one collector at a time"
    LISTS_FIRST = "lists are condemned before chunks"


class Kind(Enum):
    """Where a root stands."""

    PATH = "a path info of this store"
    ELSEWHERE = "a path info of a named cache"
    RECORD = "a record that keeps content"


class Root(NamedTuple):
    kind: Kind
    node: str


Doing: TypeAlias = Literal["nothing", "reads", "imports", "has calculated", "knows facts", "holds the lock", "has looked"]


class Client(NamedTuple):
    """Puts one root.

    at: How much of the content of the root the client has dealt with.
    noted: Whether the counter is as the client noted it.
    found: What the client has found condemned. Its next transaction takes it back.
    """

    doing: Doing = "nothing"
    root: int = 0
    at: int = 0
    noted: bool = False
    found: str = ""

    @property
    def holds_lock(self) -> bool:
        return self.doing in {"holds the lock", "has looked"}


Step: TypeAlias = Literal["nothing", "marks", "rescues", "drops", "condemns", "publishes"]


class Collector(NamedTuple):
    """`at` counts roots or content, `marked` are numbers of roots."""

    doing: Step = "nothing"
    at: int = 0
    marked: tuple[int, ...] = ()


class State(NamedTuple):
    """Of all tables and processes.

    rows: The numbers of the roots that are put.
    told: Chunks that a client was told are there. It may put a list of them.
    promised: All that somebody was told is there, or has put, since the last publication.
    """

    live: Contents = NOTHING
    condemned: Contents = NOTHING
    published: bool = False
    facts: Contents = NOTHING
    rows: frozenset[int] = frozenset()
    told: Contents = NOTHING
    promised: Contents = NOTHING
    clients: tuple[Client, ...] = ()
    collectors: tuple[Collector, ...] = ()


@dataclass(frozen=True)
class World:
    """What content there may be, and who works with it.

    below: What each list and directory names.
    remembers: Whether answers about single contents are remembered, as `told` and `promised`.
    without: The rules that nobody follows.
    closures: Each content, and all below it, from the root to the leaves.
    """

    below: Mapping[str, str]
    roots: tuple[Root, ...] = ()
    clients: int = 0
    collectors: int = 1
    remembers: bool = False
    without: Rule | None = None
    closures: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for content in self.below:
            self.closures[content] = "".join(dict.fromkeys(self._walk(content)))

    def _walk(self, content: str) -> str:
        return content + "".join(self._walk(child) for child in self.below[content])

    def follows(self, rule: Rule) -> bool:
        return rule is not self.without

    def start(self) -> State:
        return State(clients=(Client(),) * self.clients, collectors=(Collector(),) * self.collectors)

    def needed(self, roots: frozenset[int] | tuple[int, ...]) -> Contents:
        """All content that roots reach, given by their numbers."""
        return NOTHING.union(*(self.closures[self.roots[root].node] for root in roots))


def is_list(content: str) -> bool:
    return content in "BC"


def breach(world: World, state: State) -> str | None:
    """The invariant that a state breaks, if any."""
    there = state.live | state.condemned
    if not there >= world.needed(state.rows):
        return "I1"  # content of a root is gone
    for content in state.live:
        if is_list(content) and not there.issuperset(world.below[content]):
            return "I2"  # a live list names a chunk that is gone
    for node in state.facts:
        if not there.issuperset(world.closures[node]):
            return "I3"  # content of a root that has facts is gone
        if state.published and not with_chunks(world, state.live).issuperset(world.closures[node]):
            return "I3"  # such content will be dropped (Claim 1 of the page)
    if not all(there >= world.needed(collector.marked) for collector in state.collectors):
        return "I7"  # a mark finds a hole, or what was marked goes before the run ends
    if not there >= state.promised:
        return "I6"  # content is gone that somebody was told is there after it was published
    return None


def with_chunks(world: World, live: Contents) -> Contents:
    """What a run leaves, if nothing is marked: live content, and the chunks that live lists name."""
    return live.union(*(world.below[content] for content in live if is_list(content)))

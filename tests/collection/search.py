"""A search of all states of a world, those first that few steps lead to."""

from collections import deque
from dataclasses import dataclass

from tests.collection.clients import client_steps, content_steps, policy_steps
from tests.collection.collector import collector_steps
from tests.collection.model import State, World, breach

_PARTS = (content_steps, policy_steps, client_steps, collector_steps)


@dataclass(frozen=True)
class Found:
    """What a search has found: the first breach and the shortest way to it, or all states that can be reached."""

    breach: str | None
    trace: list[str]
    states: list[State]


def search(world: World) -> Found:
    start = world.start()
    before: dict[State, tuple[State, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        for part in _PARTS:
            for name, after in part(world, state):
                if after in before:
                    continue
                before[after] = state, name
                fault = breach(world, after)
                if fault is not None:
                    return Found(fault, _trace(before, after), list(before))
                waiting.append(after)
    return Found(None, [], list(before))


def _trace(before: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names: list[str] = []
    while (step := before[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]

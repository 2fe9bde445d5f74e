"""Breadth-first search of all states of a world."""

from collections import deque
from collections.abc import Callable

from tests.collection.clients import client_steps, content_steps, policy_steps
from tests.collection.collector import collector_steps
from tests.collection.model import State, World, breach

PARTS = (content_steps, policy_steps, client_steps, collector_steps)


def search(world: World, check: Callable[[World, State], str | None] = breach, limit: int = 10_000_000) -> tuple[int, str | None, list[str], dict]:
    start = world.start()
    came: dict[State, tuple[State, str] | None] = {start: None}
    todo = deque([start])
    while todo:
        state = todo.popleft()
        for part in PARTS:
            for name, after in part(world, state):
                if after in came:
                    continue
                came[after] = state, name
                fault = check(world, after)
                if fault is not None:
                    return len(came), fault, trace(came, after), came
                todo.append(after)
        if len(came) > limit:
            return len(came), "LIMIT", [], came
    return len(came), None, [], came


def trace(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names: list[str] = []
    while (before := came[state]) is not None:
        state, name = before
        names.append(name)
    return names[::-1]

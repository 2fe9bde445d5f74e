"""What a transaction does with one content."""

from tests.collection.model import Rule, State, World, is_list


def take_back(world: World, state: State, content: str) -> State:
    """Make condemned content live again (R1). Nothing happens where it is gone, or a list whose chunk is gone."""
    if content not in state.condemned or not world.follows(Rule.R1):
        return state
    moved = {content}
    if is_list(content) and world.follows(Rule.R1_CHUNKS):
        if not all(is_there(state, chunk) for chunk in world.below[content]):
            return state
        moved.update(world.below[content])
    return state._replace(live=state.live | moved, condemned=state.condemned - moved)


def is_there(state: State, content: str) -> bool:
    """What a reader sees."""
    return content in state.live or content in state.condemned


def put(world: World, state: State, content: str) -> State | None:
    """Put content (W1, W2). None: a chunk of the list is gone, and the put is refused."""
    if content in state.live or (content in state.condemned and not world.follows(Rule.W1)):
        return state
    after = state._replace(live=state.live | {content})
    if not is_list(content) or not world.follows(Rule.W2):
        return after
    chunks = frozenset(world.below[content])
    if not all(is_there(state, chunk) for chunk in chunks):
        return None
    if not world.follows(Rule.W2_TAKES_BACK):
        return after
    return after._replace(live=after.live | chunks, condemned=after.condemned - chunks)

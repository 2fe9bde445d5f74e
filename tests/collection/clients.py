"""What clients do. A client may put any root at any time, and die at any time."""

from collections.abc import Iterator
from typing import TypeAlias

from tests.collection.contents import is_there, put, take_back
from tests.collection.model import Client, Kind, Rule, State, World, is_list

Steps: TypeAlias = Iterator[tuple[str, State]]
OneClient: TypeAlias = Iterator[tuple[str, State, Client]]
IDLE = Client()


def content_steps(world: World, state: State) -> Steps:
    """Somebody asks for one content, or puts it."""
    for content, below in world.below.items():
        if is_there(state, content):
            yield f"{content} is there, says an answer", remember(world, take_back(world, state, content), content)
        if not world.remembers or not is_list(content) or state.told.issuperset(below):
            after = put(world, state, content)
            if after is not None:
                yield f"{content} is put", remember(world, after, content)


def remember(world: World, state: State, content: str) -> State:
    if not world.remembers:
        return state
    named = any(content in world.below[each] for each in world.below if is_list(each))
    return state._replace(told=state.told | {content} if named else state.told, promised=state.promised | {content})


def policy_steps(_world: World, state: State) -> Steps:
    for root in sorted(state.rows):
        yield f"a policy removes root {root}", state._replace(rows=state.rows - {root})


def client_steps(world: World, state: State) -> Steps:
    for place, client in enumerate(state.clients):
        if place and client == state.clients[place - 1]:
            continue  # clients are alike, and sorted
        others = state.clients[:place] + state.clients[place + 1 :]
        for name, after, next_client in one_client(world, state, client):
            yield f"a client, root {next_client.root}: {name}", after._replace(clients=tuple(sorted((*others, next_client))))


def one_client(world: World, state: State, client: Client) -> OneClient:
    match client.doing:
        case "nothing":
            yield from begin(world, state)
            return
        case "reads":
            yield from read(world, state, client)
        case "imports":
            yield from import_content(world, state, client)
        case "has calculated":
            yield put_facts(world, state, client)
        case "knows facts":
            yield put_path(world, state, client)
        case "holds the lock":
            yield look_inside_lock(world, state, client)
        case "has looked":
            yield "puts the root, and gives the lock back", with_row(state, client), IDLE
    yield "dies", state, IDLE


def begin(world: World, state: State) -> OneClient:
    for number, (kind, node) in enumerate(world.roots):
        if kind is Kind.RECORD:
            yield "takes the lock", state, Client("holds the lock", number)
            continue
        yield f"begins to read {node}", state, Client("reads", number, noted=True)
        yield f"begins to import {node}", state, Client("imports", number, noted=True)
        if node in state.facts:
            yield f"hears the facts of {node}", state, Client("knows facts", number)


def read(world: World, state: State, client: Client) -> OneClient:
    """Read the next content. What is condemned is noted, and taken back later."""
    content = world.closures[world.roots[client.root].node][client.at]
    if content in state.live:
        yield f"reads {content}", state, advance(world, client)
    elif content in state.condemned:
        yield f"reads {content}, which is condemned", state, advance(world, client._replace(found=client.found + content))
    if client.found:  # another transaction of the same process
        yield f"takes back {client.found}", take_all_back(world, state, client), client._replace(found="")


def import_content(world: World, state: State, client: Client) -> OneClient:
    """Put the next content, the leaves first. The chunks of a list that is there need not be sent."""
    closure = world.closures[world.roots[client.root].node][::-1]
    content = closure[client.at]
    after = put(world, state, content)
    if after is not None:
        yield f"imports {content}", after, advance(world, client)
    for at, later in enumerate(closure[client.at :], client.at):
        if (at == client.at or is_list(later)) and is_there(state, later):
            yield f"is told that {later} is there", take_back(world, state, later), advance(world, client._replace(at=at))


def advance(world: World, client: Client) -> Client:
    if client.at + 1 < len(world.closures[world.roots[client.root].node]):
        return client._replace(at=client.at + 1)
    return client._replace(doing="has calculated", at=0)


def take_all_back(world: World, state: State, client: Client) -> State:
    for content in client.found:
        state = take_back(world, state, content)
    return state


def put_facts(world: World, state: State, client: Client) -> tuple[str, State, Client]:
    """F1. One transaction takes back all that was found, and then puts the facts."""
    node = world.roots[client.root].node
    after = take_all_back(world, state, client)
    if client.noted or not world.follows(Rule.F1):
        after = after._replace(facts=after.facts | {node})
        return f"puts the facts of {node}", after, Client("knows facts", client.root)
    return "is refused, and reads again", after, again(client)


def again(client: Client) -> Client:
    return Client("reads", client.root, noted=True)


def put_path(world: World, state: State, client: Client) -> tuple[str, State, Client]:
    """F2. What is put elsewhere has to look inside the lock first (F3)."""
    kind, node = world.roots[client.root]
    if kind is Kind.ELSEWHERE:
        return "takes the lock", state, Client("holds the lock", client.root)
    if node not in state.facts and world.follows(Rule.F2):
        return "sees no facts, and reads again", state, again(client)
    return "puts the path", with_row(state, client), IDLE


def look_inside_lock(world: World, state: State, client: Client) -> tuple[str, State, Client]:
    """F3. A path info needs facts, a record the content itself; chunks of a list need no look of their own."""
    kind, node = world.roots[client.root]
    looked = Client("has looked", client.root)
    if not world.follows(Rule.F3_LOOK):
        return "does not look", state, looked
    if kind is Kind.ELSEWHERE:
        if node in state.facts:
            return "sees the facts", state, looked
        return "sees no facts, gives the lock back, and reads again", state, again(client)
    closure = world.closures[node]
    wanted = closure[:1] if is_list(node) else closure
    content = wanted[client.at]
    if not is_there(state, content):
        return f"sees no {content}, and gives the lock back", state, IDLE
    after = take_back(world, state, content)
    return f"sees {content}", after, client._replace(at=client.at + 1) if client.at + 1 < len(wanted) else looked


def with_row(state: State, client: Client) -> State:
    return state._replace(rows=state.rows | {client.root})

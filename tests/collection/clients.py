"""What clients do. A client may put or ask for anything at any time: what it remembers decides nothing, save in a world where it
leaves out what it was told is there."""

from collections.abc import Iterator

from tests.collection.model import Client, Kind, Rule, State, World, is_list

Steps = Iterator[tuple[str, State]]
IDLE = Client()


def take_back(world: World, state: State, content: str) -> State | None:
    """Live content stays as it is, condemned content becomes live. None: it is gone."""
    if content in state.live:
        return state
    if content not in state.condemned:
        return None
    moved = {content}
    if is_list(content) and world.follows(Rule.R1_CHUNKS):
        moved.update(world.below[content])
    return state._replace(live=state.live | moved, condemned=state.condemned - moved)


def look(world: World, state: State, content: str) -> State | None:
    """R1: a reader's look, or "missing?"."""
    if not world.follows(Rule.R1) and content in state.condemned:
        return state
    return take_back(world, state, content)


def store(world: World, state: State, content: str) -> State | None:
    """W1 and W2: put content. None: a chunk of the list is gone."""
    if not world.follows(Rule.W1) and content in state.condemned:
        return state
    if is_list(content) and world.follows(Rule.W2):
        for chunk in world.below[content]:
            seen = take_back(world, state, chunk)
            if seen is None:
                return None
            state = seen
    return state._replace(live=state.live | {content})


def tell(world: World, state: State, content: str) -> State:
    if not world.remembers:
        return state
    return state._replace(told=state.told | {content}, promised=state.promised | {content})


def content_steps(world: World, state: State) -> Steps:
    for content, below in world.below.items():
        told = look(world, state, content)
        if told is not None:
            yield f"told {content} is there", tell(world, told, content)
        allowed = not is_list(content) or state.told.issuperset(below) if world.remembers else True
        if allowed:
            stored = store(world, state, content)
            if stored is not None and (world.remembers or world.follows(Rule.W2) or not is_list(content)):
                yield f"put {content}", tell(world, stored, content)
    if state.told:
        yield "the client forgets what it was told", state._replace(told=frozenset())


def policy_steps(_world: World, state: State) -> Steps:
    for root in sorted(state.rows):
        after = without_row(state, root)
        yield f"policy removes root {root}", after._replace(acknowledged=after.acknowledged - {root})


def without_row(state: State, root: int) -> State:
    """Who has put the row, and finds later that its content is there, has nothing to acknowledge any more."""
    clients = (client._replace(owns=False) if client.root == root else client for client in state.clients)
    return state._replace(rows=state.rows - {root}, clients=tuple(sorted(clients)))


def client_steps(world: World, state: State) -> Steps:
    for place, client in enumerate(state.clients):
        if place and client == state.clients[place - 1]:
            continue
        others = state.clients[:place] + state.clients[place + 1 :]
        alone = state._replace(clients=others)
        for name, after, next_client in one_client(world, alone, client):
            yield f"client {place} ({client.doing}): {name}", after._replace(clients=tuple(sorted((*after.clients, next_client))))


def one_client(world: World, state: State, client: Client) -> Iterator[tuple[str, State, Client]]:
    root = world.roots[client.root]
    node = root.node
    closure = world.closures[node]
    doing = client.doing
    if doing == "nothing":
        for number, each in enumerate(world.roots):
            if each.kind is Kind.RECORD:
                yield from place(world, state, Client("looks", number), "puts the record")
                continue
            yield f"reads {each.node}", state, Client("reads", number, noted=True)
            yield f"imports {each.node}", state, Client("imports", number, noted=True)
            if each.node in state.facts:
                yield f"hears the facts of {each.node}", state, Client("knows", number)
        return
    yield "dies", state, IDLE
    if client.placed:
        yield from give_up(world, state, client)
    if doing == "reads":
        content = closure[client.at]
        seen = look(world, state, content)
        if seen is None:
            if not client.placed:
                yield f"finds no {content}", state, IDLE
        else:
            yield f"sees {content}", seen, advance(world, client, closure)
    elif doing == "imports":
        content = closure[::-1][client.at]
        put = store(world, state, content)
        if put is not None:
            yield f"imports {content}", put, advance(world, client, closure)
        if not is_list(content):
            rest = closure[::-1][client.at :]
            for offset, later in enumerate(rest):
                if is_list(later) and later in state.live:
                    yield f"knows {later}", state, advance(world, client._replace(at=client.at + offset), closure)
    elif doing == "calculated":
        if client.noted or not world.follows(Rule.F1):
            yield (
                f"remembers the facts of {node}",
                state._replace(facts=state.facts | {node}),
                client._replace(doing="placed" if client.placed else "knows", at=0, noted=False),
            )
        else:
            yield "is refused", state, client._replace(doing="reads", at=0, noted=True)
    elif doing == "knows":
        if root.kind is Kind.PATH and world.follows(Rule.F2) and node not in state.facts:
            yield "is refused", state, client._replace(doing="reads", at=0, noted=True)
        elif root.kind is Kind.PATH:
            yield from acknowledge(state, client, "puts the path")
        else:
            yield from place(world, state, client._replace(doing="placed"), "puts the path elsewhere")
    elif doing == "placed":
        if node in state.facts or not world.follows(Rule.F3):
            yield from seen_again(world, state, client, "sees the facts again")
        else:
            yield "sees no facts", state, client._replace(doing="reads", noted=True)
    elif doing == "looks":
        content = closure[client.at]
        seen = look(world, state, content)
        if not world.follows(Rule.F4):
            yield from acknowledge(state, client, "does not look")
        elif seen is not None:
            if client.at + 1 < len(closure):
                yield f"sees {content}", seen, client._replace(at=client.at + 1)
            else:
                yield from seen_again(world, seen, client, f"sees {content}")
    elif doing == "confirms":
        if client.owns:
            yield from acknowledge(state, client, "confirms")
        else:
            yield "finds that the row is not its own", state, IDLE


def advance(_world: World, client: Client, closure: str) -> Client:
    if client.at + 1 < len(closure):
        return client._replace(at=client.at + 1)
    return client._replace(doing="calculated", at=0)


def acknowledge(state: State, client: Client, name: str) -> Iterator[tuple[str, State, Client]]:
    """A root that a policy has removed meanwhile is not acknowledged anew."""
    if not client.placed:
        state = state._replace(rows=state.rows | {client.root})
    elif not client.owns:
        yield f"{name}, of a row that was removed meanwhile", state, IDLE
        return
    yield f"{name}: acknowledged", state._replace(acknowledged=state.acknowledged | {client.root}), IDLE


def give_up(world: World, state: State, client: Client) -> Iterator[tuple[str, State, Client]]:
    if not world.confirms or (client.owns and client.root not in state.acknowledged):
        yield "fails, and removes its row", without_row(state, client.root), IDLE


def place(world: World, state: State, client: Client, name: str) -> Iterator[tuple[str, State, Client]]:
    if world.confirms:
        if client.root in state.acknowledged:
            return
        clients = (each._replace(owns=False) if each.root == client.root else each for each in state.clients)
        state = state._replace(clients=tuple(sorted(clients)))
    yield name, state._replace(rows=state.rows | {client.root}), client._replace(placed=True, owns=True)


def seen_again(world: World, state: State, client: Client, name: str) -> Iterator[tuple[str, State, Client]]:
    if world.confirms:
        yield name, state, client._replace(doing="confirms", at=0)
    else:
        yield from acknowledge(state, client, name)

"""Small worlds: each has what some rules are for, and little else."""

from tests.collection.model import Kind, Root, World

_CHUNK = {"x": ""}
_LIST = {"B": "x", "x": ""}
_DIRECTORY = {"R": "x", "x": ""}


def _world(below: dict[str, str], *roots: Root, clients: int = 1) -> World:
    return World(below, roots, clients)


def _path(node: str) -> Root:
    return Root(Kind.PATH, node)


def _elsewhere(node: str) -> Root:
    return Root(Kind.ELSEWHERE, node)


def _record(node: str) -> Root:
    return Root(Kind.RECORD, node)


WORLDS = {
    "answers about a chunk": World(_CHUNK, remembers=True),
    "answers about a list": World(_LIST, remembers=True),
    "answers about a list of two chunks": World({"B": "xy", "x": "", "y": ""}, remembers=True),
    "answers about two lists of one chunk": World({"B": "x", "C": "x", "x": ""}, remembers=True),
    "path of a chunk": _world(_CHUNK, _path("x")),
    "path of a list": _world(_LIST, _path("B")),
    "path of a directory": _world(_DIRECTORY, _path("R")),
    "path of a chunk, two clients": _world(_CHUNK, _path("x"), clients=2),
    "two paths of a chunk": _world(_CHUNK, _path("x"), _path("x")),
    "path elsewhere of a chunk": _world(_CHUNK, _elsewhere("x")),
    "path elsewhere of a list": _world(_LIST, _elsewhere("B")),
    "path elsewhere of a chunk, two clients": _world(_CHUNK, _elsewhere("x"), clients=2),
    "a chunk's path here and elsewhere": _world(_CHUNK, _path("x"), _elsewhere("x")),
    "record of a chunk": _world(_CHUNK, _record("x")),
    "record of a list": _world(_LIST, _record("B")),
    "record of a directory": _world(_DIRECTORY, _record("R")),
    "record of a chunk, two clients": _world(_CHUNK, _record("x"), clients=2),
    "record of a list, path of its chunk": _world(_LIST, _record("B"), _path("x")),
}

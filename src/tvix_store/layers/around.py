"""around: an offer whose calls go through something that is done around each of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from dataclasses import fields
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from tvix_store.model.digest import Digest
from tvix_store.model.directory import Directory
from tvix_store.model.nodes import Node
from tvix_store.services.directories import DirectoryTree
from tvix_store.services.offer import Offer
from tvix_store.services.staging import Stage


class Kind(Enum):
    """What a method takes and gives."""

    CALL = auto()
    """It is awaited."""
    STREAM = auto()
    """It gives items, one by one."""
    PUT = auto()
    """It takes a stream as its first argument, and is awaited."""
    TREE = auto()
    """`DirectoryService.tree`: the handle's `get` is a CALL."""
    STAGE = auto()
    """`Staging.begin`: the services of the stage are wrapped too."""
    PLAIN = auto()
    """It is passed on."""


def _calls(*names: str) -> dict[str, Kind]:
    return dict.fromkeys(names, Kind.CALL)


METHODS: Mapping[str, Mapping[str, Kind]] = {
    "blobs": _calls("stat", "missing", "put_many", "get_many") | {"read": Kind.STREAM, "put": Kind.PUT},
    "directories": _calls("get") | {"get_recursive": Kind.STREAM, "tree": Kind.TREE, "put": Kind.PUT},
    "path_infos": _calls("get", "get_many", "existing", "put") | {"list": Kind.STREAM},
    "nar": _calls("calculate"),
    "records": _calls("get", "put", "delete", "exchange") | {"list": Kind.STREAM},
    "frames": _calls("find", "read"),
    "lone_files": {"put": Kind.PUT},
    "staging": {"begin": Kind.STAGE},
    "assembling": _calls("assemble"),
    "granular": _calls(
        *("missing_directories", "get_directories", "put_directories", "list_chunks"),
        *("get_chunks", "missing_chunks", "put_chunks", "assemble"),
    ),
    "deltas": _calls("make", "apply"),
    "many_path_infos": _calls("put_many"),
    "named_paths": _calls("versions"),
    "arrivals": _calls("order"),
    "removal": _calls("remove"),
    "collection": _calls("collect", "expected", "fitting", "room"),
    "statistics": _calls("stats"),
    "known_nars": _calls("get", "put") | {"begin": Kind.PLAIN},
}
"""The methods of all services and powers. A test holds it against them."""


class Method(NamedTuple):
    """The name of a service or power in an Offer, and that of one of its methods."""

    service: str
    name: str


class Around(Protocol):
    """What is done around calls. Each function gets the method, the function of the inner service, and its arguments."""

    async def call(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def stream(self, method: Method, function: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]: ...

    async def put(
        self, method: Method, function: Callable[..., Any], data: AsyncIterable[Any], *args: Any, **kwargs: Any
    ) -> Any: ...


def wrapped(offer: Offer, around: Around, leaves: Collection[str] = ()) -> Offer:
    """The offer, where `around` is done around each call of its services and powers, but for those that it `leaves`."""
    parts = {field.name: getattr(offer, field.name) for field in fields(Offer)}
    for service in METHODS.keys() - set(leaves):
        if parts[service] is not None:
            parts[service] = _Wrapped(parts[service], service, around)
    return Offer(**parts)


class _Wrapped:
    """A service. A method is wrapped when it is first used."""

    def __init__(self, inner: object, service: str, around: Around) -> None:
        self._inner = inner
        self._service = service
        self._around = around

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        kind = METHODS[self._service].get(name, Kind.PLAIN)
        if kind is not Kind.PLAIN:
            value = self._method(kind, Method(self._service, name), value)
            setattr(self, name, value)
        return value

    def _method(self, kind: Kind, method: Method, function: Callable[..., Any]) -> Callable[..., Any]:
        around = self._around

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await around.call(method, function, *args, **kwargs)

        def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            return around.stream(method, function, *args, **kwargs)

        async def put(data: AsyncIterable[Any], *args: Any, **kwargs: Any) -> Any:
            return await around.put(method, function, data, *args, **kwargs)

        def tree(root: Node) -> DirectoryTree:
            return _Tree(function(root), method, around)

        def begin(*, rechecks: bool = False) -> Stage:
            return _Stage(function(rechecks=rechecks), around)

        kinds: Mapping[Kind, Callable[..., Any]] = {
            Kind.CALL: call,
            Kind.STREAM: stream,
            Kind.PUT: put,
            Kind.TREE: tree,
            Kind.STAGE: begin,
        }
        return kinds[kind]


class _Tree:
    """A DirectoryTree."""

    def __init__(self, inner: DirectoryTree, method: Method, around: Around) -> None:
        self._inner = inner
        self._method = method
        self._around = around
        self.expect_all = inner.expect_all

    @property
    def root(self) -> Node:
        return self._inner.root

    async def get(self, digest: Digest) -> Directory:
        found: Directory = await self._around.call(self._method, self._inner.get, digest)
        return found

    def below(self, node: Node) -> DirectoryTree:
        return _Tree(self._inner.below(node), self._method, self._around)


class _Stage:
    """A Stage."""

    def __init__(self, inner: Stage, around: Around) -> None:
        self.blobs = _Wrapped(inner.blobs, "blobs", around)
        self.directories = _Wrapped(inner.directories, "directories", around)
        self.new_bytes = inner.new_bytes
        self.close = inner.close
        self._accept = inner.accept
        self._around = around

    async def accept(self, *args: Any, **kwargs: Any) -> None:
        await self._around.call(Method("staging", "accept"), self._accept, *args, **kwargs)

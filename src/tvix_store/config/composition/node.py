"""Node: an instance of a type, with the instances that it refers to. What types are made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from tvix_store.config.composition.parameter import parameters
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.scheme import Opening
from tvix_store.services.offer import Offer, Service
from tvix_store.services.store import Store

T = TypeVar("T")
ALL: frozenset[Service] = frozenset(SERVICES)


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """An instance. Two that are of one type, with the same values and the same references, are one `Node`: it is opened once.

    name: For messages: `[blobservices.near]`, or an address without its secrets.
    terms: Its values; those of references are nodes.
    """

    name: str
    terms: Terms

    def references(self, service: Service) -> Iterator[tuple[Node, Service]]:
        """The nodes that it refers to where it offers `service`, and which service of each it uses."""
        for name, (made, _) in parameters(self.terms).items():
            referred = getattr(self.terms, name)
            if made.is_reference and isinstance(referred, Node):
                yield referred, made.refers_to or service


class Terms:
    """The base of types: frozen dataclasses whose fields are `parameter(…)` and `reference(…)`. Use a class below.

    services: The services that an instance may be of.
    has_name: Whether instances of other names are others, although all values are the same.
    """

    services: ClassVar[frozenset[Service]] = ALL
    has_name: ClassVar[bool] = False

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the values: the key, and a sentence."""
        return iter(())

    def found(self) -> Iterator[tuple[str, str]]:
        """What is wrong on this machine now, without opening anything: the key, and a sentence."""
        return iter(())

    def secret_files(self) -> Iterator[str]:
        """Paths of files with secrets: who else may read them is told."""
        return iter(())

    def resolved(self) -> Terms:
        """What it stands for, where that is something else."""
        return self


class Leaf(Terms):
    """A type whose instances have an address, by which they are opened."""

    def address(self) -> str:
        """The address. It may hold secrets."""
        raise NotImplementedError


class Parts(Protocol):
    """What is open of a composition, for a type that refers to it."""

    @property
    def opening(self) -> Opening: ...

    async def offer(self, node: Node) -> Offer:
        """The offer of a node. Whoever asks does not close it."""
        ...

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, once for each key: for what several instances share."""
        ...


class Layer(Terms):
    """A type over other instances. They are opened before it, and closed after it, by whoever opens the composition."""

    @property
    def kept(self) -> Node | None:
        """Where what is put is kept in the end: unless it says otherwise, in its `inner`. None where it keeps it itself."""
        return getattr(self, "inner", None)

    async def open(self, parts: Parts) -> Offer:
        """The services over those of `parts`."""
        raise NotImplementedError


class StoreLayer(Terms):
    """A type over a whole store: over path infos, and the content that they are of.

    blob_service, directory_service: Where the content is.
    inner: The path infos below. None where they have no place of their own.
    """

    services: ClassVar[frozenset[Service]] = frozenset(("path_infos",))
    blob_service: Node
    directory_service: Node
    inner: Node | None

    async def over(self, store: Store, kept_at: str) -> Store:
        """The store with this layer. `kept_at` is the address of the path infos below. Closing it closes `store` too."""
        raise NotImplementedError

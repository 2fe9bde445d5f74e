"""Composition: the instances that make a store, and what refers to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from tvix_store.config.composition.interning import Interning, lacking, place_of
from tvix_store.config.composition.node import Layer, Leaf, Node, StoreLayer
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.composition.upstreams import Upstreams
from tvix_store.config.schemes import UPSTREAMS
from tvix_store.errors import UnsupportedError
from tvix_store.model.address import Address
from tvix_store.model.signature import PublicKey
from tvix_store.services.offer import Service

if TYPE_CHECKING:
    from tvix_store.config.composition.entries import Entry

DEFAULT_ADDRESS = "local://"
"""The embedded store in the user's data directory."""


@dataclass(frozen=True, slots=True)
class Composition:
    """A store that may be opened: the root of each service, and all below. It has neither cycles nor names that mean nothing.

    addresses: For each service, the address that stands for it: the one that was given, else that of the place where it is kept.
    entries: The tables that it was read from, each with its node; none of one that was made of addresses.
    """

    roots: Mapping[Service, Node]
    addresses: Mapping[Service, str]
    entries: Sequence[tuple[Entry, Node]] = ()

    def uses(self) -> dict[Node, set[Service]]:
        """All nodes that are opened, each with the services that are used of it."""
        found: dict[Node, set[Service]] = {}
        todo = [(node, service) for service, node in self.roots.items()]
        while todo:
            node, service = todo.pop()
            if service not in found.setdefault(node, set()):
                found[node].add(service)
                todo += node.references(service)
        return found

    def leaves(self) -> list[str]:
        """The addresses of all that is opened, each once. They may hold secrets."""
        addresses = (node.terms.address() for node in self.uses() if isinstance(node.terms, Leaf))
        return list(dict.fromkeys(addresses))

    def upstreams(self) -> list[str]:
        """The URLs of the binary caches from which paths come, each once. They may hold secrets."""
        urls = (url for node in self.uses() if isinstance(node.terms, Upstreams) for url in node.terms.urls)
        return list(dict.fromkeys(urls))

    def secret_files(self) -> list[str]:
        """The paths of all files with secrets."""
        return [file for node in self.uses() for file in node.terms.secret_files()]

    def only_leaf(self) -> str | None:
        """The address of the only instance, if it is one that has an address and is the root of all services."""
        first, *others = set(self.roots.values())
        return first.terms.address() if isinstance(first.terms, Leaf) and not others else None

    def with_upstreams(self, urls: Sequence[str], keys: Sequence[PublicKey]) -> Composition:
        """The same, with missing paths fetched from binary caches. `keys` are trusted for those that name none."""
        root = self.roots["path_infos"]
        own = isinstance(root.terms, Upstreams) and root.terms.content == (self.roots["blobs"], self.roots["directories"])
        if not urls and not own:
            return self
        more = Upstreams(tuple(urls), tuple(keys), self.roots["blobs"], self.roots["directories"])
        return replace(self, roots={**self.roots, "path_infos": replace(root, terms=more.keeping_in(root))})


def kept_at(node: Node) -> str:
    """The address of the place where what is put into a node is kept in the end."""
    terms = node.terms
    if isinstance(terms, Leaf):
        return terms.address()
    if isinstance(terms, StoreLayer):
        return kept_at(terms.inner or terms.directory_service)
    if isinstance(terms, Layer) and terms.kept is not None:
        return kept_at(terms.kept)
    return f"composition:{quote(node.name)}"  # a type of another package, which has no address


def of_addresses(
    address: str | None = None, *, blobs: str | None = None, directories: str | None = None, path_infos: str | None = None
) -> Composition:
    """The composition that addresses are short for: a store's, and those of single services that stand elsewhere.

    Raises:
        InvalidError: an address is malformed, or of an unknown scheme.
        UnsupportedError: a service would be nowhere.
    """
    everywhere = address or DEFAULT_ADDRESS
    given: dict[Service, str] = {
        "blobs": blobs or everywhere,
        "directories": directories or everywhere,
        "path_infos": path_infos or everywhere,
    }
    _check_places(given)
    interning = Interning()
    roots: dict[Service, Node] = {}
    for service in SERVICES:
        root = interning.at(given[service], service, roots.get)
        assert root is not None, "the roots of content come first"
        roots[service] = root
    return Composition(roots, given)


def _check_places(given: Mapping[Service, str]) -> None:
    for text in dict.fromkeys(given.values()):
        address = Address.parse(text)
        services = [service for service, each in given.items() if each == text and place_of(address, service) is None]
        if address.scheme in UPSTREAMS and services and services != ["path_infos"]:
            raise UnsupportedError(lacking(text, services))

"""Interning: values become nodes. Two that are the same become one node, which is opened once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeAlias

from tvix_store.config.composition.at_address import AtAddress
from tvix_store.config.composition.node import Leaf, Node, Terms
from tvix_store.config.composition.upstreams import Upstreams
from tvix_store.config.schemes import UPSTREAMS, check_scheme
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.model.address import Address, is_address, without_secrets
from tvix_store.services.offer import Service

Root: TypeAlias = Callable[[Service], Node | None]
"""Gives the root of a service. None where that is wrong, which was told."""


class Interning:
    """All nodes of a composition."""

    def __init__(self) -> None:
        self._nodes: dict[object, Node] = {}

    def node(self, name: str, terms: Terms, instance: str) -> Node:
        """The node of some values: for messages, it is called `name`. `instance` tells those apart that have names."""
        terms = terms.resolved()
        key: object
        if isinstance(terms, Leaf):
            check_scheme(Address.parse(terms.address()))
            key = terms.address(), instance if terms.has_name else ""
        else:
            values: Any = terms
            key = type(terms), *(getattr(terms, each.name) for each in fields(values))
        return self._nodes.setdefault(key, Node(name, terms))

    def at(self, text: str, service: Service, root: Root) -> Node | None:
        """The node of an address. What comes from a binary cache goes to the roots, and is kept where its address says.

        Raises:
            InvalidError: the address is malformed, or of an unknown scheme.
            UnsupportedError: it is that of a binary cache, which has no blobs and directories.
        """
        address = Address.parse(text)
        name = without_secrets(text)
        if address.scheme not in UPSTREAMS:
            return self.node(name, AtAddress(text), "")
        place = place_of(address, service)
        if place is not None and not is_address(place):  # which is not shown, since it may be a secret in the wrong place
            raise InvalidError(f"{name}: what stands there for the content is not the address of a store")
        if service != "path_infos":
            if place is None:
                raise UnsupportedError(lacking(text, [service]))
            return self.at(place, service, root)
        blobs, directories = root("blobs"), root("directories")
        inner = None if place is None else self.at(place, service, root)
        if blobs is None or directories is None or (place is not None and inner is None):
            return None
        upstreams = Upstreams((text,), (), blobs, directories)
        return self.node(name, upstreams if inner is None else upstreams.keeping_in(inner), "")


def place_of(address: Address, service: Service) -> str | None:
    """Where the address of a binary cache says that a service is: `blob_service`, `directory_service`. Either stands for both."""
    blobs, directories = (address.parameters.get(name) for name in ("blob_service", "directory_service"))
    return (blobs or directories) if service == "blobs" else (directories or blobs)


def lacking(address: str, services: list[Service]) -> str:
    """What to say where the address of a binary cache is given for services that it does not have."""
    words = " and no ".join(service.replace("_", " ") for service in services)
    return (
        f"{without_secrets(address)} has no {words}: give the address of a store that has them, "
        "or say where they go, as ?blob_service=ADDRESS"
    )

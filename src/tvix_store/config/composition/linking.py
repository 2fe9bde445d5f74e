"""From entries to nodes: names become the instances that they stand for. Cycles and unknown names are faults."""

from __future__ import annotations

from difflib import get_close_matches

from tvix_store.config.composition.at_address import AtAddress
from tvix_store.config.composition.entries import ROOT, Entry, Fault, Tables
from tvix_store.config.composition.interning import Interning
from tvix_store.config.composition.node import Node
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.toml_document import Keys
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.model.address import is_address
from tvix_store.services.offer import Service

_DEEPEST = 50
"""Instances one below the other."""


class Linking:
    """The nodes of some entries. Faults go to those of the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._interning = Interning()
        self._found: dict[tuple[Service, str], Node | None] = {}
        self._way: list[tuple[Service, str]] = []
        """The entries that are being linked: each refers to the next one."""

    def nodes(self) -> dict[tuple[Service, str], Node]:
        """The nodes of all entries, also of those that nobody refers to. Some are missing where there are faults."""
        for service, name in self._tables.entries:
            self._named(service, name)
        return {key: node for key, node in self._found.items() if node is not None}

    def _named(self, service: Service, name: str) -> Node | None:
        key = service, name
        if key not in self._found:
            self._way.append(key)
            node = self._linked(self._tables.entries[key])
            self._way.pop()
            self._found[key] = node
        return self._found[key]

    def _linked(self, entry: Entry) -> Node | None:
        references = {name: self._referred((*entry.keys, name), service, text) for name, service, text in entry.references()}
        if None in references.values():
            return None
        terms = entry.terms(**{**entry.values, **references})
        faults = [Fault((*entry.keys, name), text) for name, text in terms.faults()]
        if not faults:
            if isinstance(terms, AtAddress):
                return self._at((*entry.keys, "url"), entry.service, terms.url)
            try:
                return self._interning.node(f"[{'.'.join(entry.keys)}]", terms, entry.name)
            except InvalidError as error:  # the address of a leaf, which follows from its first value
                faults.append(Fault((*entry.keys, next(iter(entry.values))), str(error)))
        self._tables.faults += faults
        return None

    def _referred(self, keys: Keys, service: Service, text: str) -> Node | None:
        """The node that a reference stands for; None where there is a fault."""
        if is_address(text):
            return self._at(keys, service, text)
        target = service, text.removeprefix("&")
        fault = None
        if target in self._way:
            way = [*self._way[self._way.index(target) :], target]
            fault = f"a cycle: {' → '.join(f'{SERVICES[each]}.{at}' for each, at in way)}"
        elif len(self._way) >= _DEEPEST:
            fault = f"more than {_DEEPEST} instances one below the other"
        elif target in self._tables.entries:
            return self._named(*target)
        elif target not in self._tables.named:
            fault = self._nobody(*target)
        if fault is not None:
            self._tables.faults.append(Fault(keys, fault))
        return None

    def _at(self, keys: Keys, service: Service, address: str) -> Node | None:
        try:
            return self._interning.at(address, service, lambda of: self._referred(keys, of, ROOT))
        except (InvalidError, UnsupportedError) as error:
            self._tables.faults.append(Fault(keys, str(error)))
            return None

    def _nobody(self, service: Service, name: str) -> str:
        """What to say of the name of an instance that is not there."""
        table = SERVICES[service]
        names = [each for of, each in self._tables.named if of == service]
        if near := get_close_matches(name[:100], names, 1):
            return f"there is no [{table}.{name}]; did you mean &{near[0]}?"
        return f"there is no [{table}.{name}] (known: {', '.join(sorted(names)) or 'none'})"

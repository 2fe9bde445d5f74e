"""From tables to entries: each table is read by its type. What is wrong is told of all of them, and not of the first alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from typing import Any

from tvix_store.config.composition.node import Terms
from tvix_store.config.composition.parameter import Parameter, parameters, read_value, shortened
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.composition.types import type_of
from tvix_store.config.toml_document import Keys
from tvix_store.errors import InvalidError
from tvix_store.services.offer import Service

ROOT = "root"
"""The name of the instance that is used, of each service."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and at which key: those of the tables, and the key in the last one."""

    keys: Keys
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A table that is right by itself. The values of references are texts: names, or addresses."""

    service: Service
    name: str
    type_name: str
    terms: type[Terms]
    values: Mapping[str, Any]

    @property
    def keys(self) -> Keys:
        return SERVICES[self.service], self.name

    def references(self) -> Iterator[tuple[str, Service, str]]:
        """The keys that refer to other instances, the service of each, and what is written there."""
        for name, (made, _) in parameters(self.terms).items():
            if made.is_reference and self.values[name] is not None:
                yield name, made.refers_to or self.service, self.values[name]


@dataclass(slots=True)
class Tables:
    """The entries of a composition, and the faults in what was read.

    named: All tables, also those that are no entries, since they are wrong.
    """

    entries: dict[tuple[Service, str], Entry] = field(default_factory=dict)
    named: set[tuple[Service, str]] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)


def used_entries(entries: Iterable[Entry]) -> set[tuple[Service, str]]:
    """Those to which the roots refer, or what they refer to; the roots among them."""
    known = {(each.service, each.name): each for each in entries}
    used: set[tuple[Service, str]] = set()
    todo: list[tuple[Service, str]] = [(service, ROOT) for service in SERVICES]
    while todo:
        key = todo.pop()
        if key in known and key not in used:
            used.add(key)
            todo += ((service, text.removeprefix("&")) for _, service, text in known[key].references())
    return used


def read_tables(document: Mapping[str, Any]) -> Tables:
    """Read `[blobservices.NAME]` and so on. A text in place of a table is an address. Other tables are left alone."""
    read = Tables()
    for service, table in SERVICES.items():
        named = document.get(table, {})
        if not isinstance(named, Mapping):
            read.faults.append(Fault((table,), f"expected tables, as [{table}.{ROOT}]"))
            continue
        for name, value in named.items():
            read.named.add((service, name))
            entry = _entry(service, name, value, read.faults)
            if entry is not None:
                read.entries[service, name] = entry
        if ROOT not in named:
            read.faults.append(
                Fault((table,) if named else (), f"there is no [{table}.{ROOT}]: the entry of each service is {ROOT}")
            )
    return read


def _entry(service: Service, name: str, value: object, faults: list[Fault]) -> Entry | None:
    keys = SERVICES[service], name
    if isinstance(value, str):
        value = {"type": "address", "url": value}
    if not isinstance(value, Mapping):
        faults.append(Fault(keys, f"expected a table with a type, or an address; got {shortened(value)}"))
        return None
    found = len(faults)
    terms, type_name = None, value.get("type")
    if type_name is None:
        faults.append(Fault(keys, 'there is no type, as in type = "local"'))
    elif not isinstance(type_name, str):
        faults.append(Fault((*keys, "type"), f"not the name of a type: {shortened(type_name)}"))
    else:
        try:
            terms = type_of(type_name)
        except InvalidError as error:
            faults.append(Fault((*keys, "type"), str(error)))
    if terms is None:
        return None
    if service not in terms.services:
        offered = " and ".join(f"[{SERVICES[each]}]" for each in SERVICES if each in terms.services)
        faults.append(Fault((*keys, "type"), f"{type_name} is for {offered} alone"))
        return None
    values = dict(_values(keys, terms, {key: each for key, each in value.items() if key != "type"}, faults))
    if len(faults) > found:
        return None
    return Entry(service, name, str(type_name), terms, values)


def _values(keys: Keys, terms: type[Terms], given: dict[str, Any], faults: list[Fault]) -> Iterator[tuple[str, Any]]:
    known = parameters(terms)
    for name, (made, declared) in known.items():
        written = [each for each in (name, *made.also) if each in given]
        if not written:
            if declared.default is MISSING and made.otherwise is None:
                faults.append(Fault(keys, f"{name} is missing: {made.what}"))
            yield name, made.otherwise or declared.default
            continue
        if len(written) > 1:
            faults.append(Fault((*keys, written[1]), f"the same as {written[0]}"))
        try:
            yield name, read_value(made, given[written[0]])
        except InvalidError as error:
            faults.append(Fault((*keys, written[0]), str(error)))
    names = {each: name for name, (made, _) in known.items() for each in (name, *made.also)}
    faults.extend(Fault((*keys, each), _unknown(each, names, known)) for each in given if each not in names)


def _unknown(name: str, names: Mapping[str, str], known: Mapping[str, tuple[Parameter, Any]]) -> str:
    near = get_close_matches(name[:100], [*names], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key (known: {', '.join(known) or 'none'}){hint}"

"""Compositions of stores, as the program reads, shows and checks them: from a file of their own, or from the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tvix_store.cli.config_file import ConfigFile, ConfigurationError, read_config_file
from tvix_store.cli.masking import masked
from tvix_store.cli.output import warn
from tvix_store.config import Composition, read_composition
from tvix_store.config.composition.entries import Entry, used_entries
from tvix_store.config.composition.parameter import parameters
from tvix_store.config.composition.reading import CompositionError
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.toml_document import TomlDocument

Tables: TypeAlias = dict[str, dict[str, Any]]
"""What stands in the tables of a composition: of each kind, the instances by their names."""


def composition_in(source: str | ConfigFile) -> Composition:
    """The composition in a file, or in a configuration.

    Raises:
        ConfigurationError: it is wrong.
        NotFoundError, DeniedError: the file cannot be read.
    """
    try:
        composition = read_composition(source)
        if isinstance(source, str) and (exposed := read_config_file(source).exposure) is not None:
            warn(exposed)
        return composition
    except CompositionError as error:
        first, *others = error.problems
        more = f" ({len(others)} more: tvix-store config check)" if others else ""
        raise ConfigurationError(f"{masked(first)}{more}") from None


def shown_tables(composition: Composition) -> Tables:
    """The tables of a composition, for people to see: secrets are masked. One that was made of addresses has these alone."""
    if not composition.entries:
        return {SERVICES[service]: {"root": masked(address)} for service, address in composition.addresses.items()}
    tables: Tables = {}
    for entry, _ in composition.entries:
        tables.setdefault(SERVICES[entry.service], {})[entry.name] = {"type": entry.type_name, **_shown_values(entry)}
    return tables


def _shown_values(entry: Entry) -> dict[str, Any]:
    shown = {}
    for name, (made, declared) in parameters(entry.terms).items():
        value = entry.values[name]
        if value == declared.default:
            continue
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            value = dict(value)
        if made.secret:
            value = dict.fromkeys(value, "***") if isinstance(value, Mapping) else "***"
        shown[name] = _masked(value)
    return shown


def _masked(value: Any) -> Any:
    return [masked(each) for each in value] if isinstance(value, tuple) else masked(value) if isinstance(value, str) else value


def faults_of(document: TomlDocument) -> Iterator[str]:
    """What is wrong with the composition in a document, a line each; also what is not there on this machine. Nothing is opened."""
    try:
        composition = read_composition(document)
    except CompositionError as error:
        yield from map(masked, error.problems)
        return
    for entry, node in composition.entries:
        for key, text in node.terms.found():
            keys = (*entry.keys, key)
            yield f"{document.place(keys)}: [{'.'.join(entry.keys)}] {key}: {masked(text)}"


def remarks_on(document: TomlDocument) -> Iterator[str]:
    """What is no fault, but worth a line: instances that nobody uses, and stores that are not there yet."""
    from tvix_store.cli.key_files import exposure
    from tvix_store.config.composition.node import Leaf
    from tvix_store.config.local import missing_store
    from tvix_store.errors import StoreError
    from tvix_store.model.address import Address

    try:
        composition = read_composition(document)
    except StoreError:
        return
    used = used_entries(entry for entry, _ in composition.entries)
    for entry, node in composition.entries:
        for file in node.terms.secret_files():
            if (exposed := exposure(Path(file))) is not None:
                yield f"{document.place(entry.keys)}: [{'.'.join(entry.keys)}]: {exposed}"
        place = f"{document.place(entry.keys)}: [{'.'.join(entry.keys)}]"
        if (entry.service, entry.name) not in used:
            yield f"{place} is not used: nothing refers to it"
        elif isinstance(node.terms, Leaf) and (address := Address.parse(node.terms.address())).scheme == "local":
            try:
                missing = missing_store(address)
            except StoreError as error:
                missing = str(error)
            if missing is not None:
                yield f"{place}: there is no {missing} yet"

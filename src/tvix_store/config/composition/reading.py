"""Reading a composition: from a TOML file in the form of snix, or from the same tables as a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tvix_store.config.composition.composition import Composition, kept_at
from tvix_store.config.composition.entries import ROOT, Fault, read_tables
from tvix_store.config.composition.linking import Linking
from tvix_store.config.composition.tables import SERVICES
from tvix_store.config.toml_document import TomlDocument, dotted, read_toml
from tvix_store.errors import InvalidError, of_disk
from tvix_store.model.file_path import StrPath

_MOST_TOLD = 100


class CompositionError(InvalidError):
    """A composition is wrong. `problems` has a line for each fault: where, and what."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


def read_composition(source: StrPath | Mapping[str, Any] | TomlDocument) -> Composition:
    """The composition in a file, in a document, or in a mapping with the same tables.

    Raises:
        CompositionError: it is wrong, or not TOML; told with file, line and key.
        NotFoundError, DeniedError: the file cannot be read.
    """
    if isinstance(source, TomlDocument):
        document, table = source, source.table
    elif isinstance(source, Mapping):
        document, table = None, source
    else:
        document = _read(os.fsdecode(source))
        table = document.table
        _check_top(document)
    tables = read_tables(table)
    nodes = Linking(tables).nodes()
    if tables.faults:
        told = sorted(tables.faults, key=lambda fault: document.line(fault.keys) if document else 0)[:_MOST_TOLD]
        raise CompositionError([_told(document, fault) for fault in told])
    roots = {service: nodes[service, ROOT] for service in SERVICES}
    entries = [(entry, nodes[key]) for key, entry in tables.entries.items()]
    return Composition(roots, {service: kept_at(node) for service, node in roots.items()}, entries)


def _read(path: str) -> TomlDocument:
    try:
        return read_toml(path)
    except InvalidError as error:
        raise CompositionError([str(error)]) from None
    except OSError as error:
        raise of_disk(error, f"cannot read the composition in {path}: {error.strerror}", InvalidError) from None


def _check_top(document: TomlDocument) -> None:
    """Raise CompositionError where a file has tables that are none of a composition."""
    from difflib import get_close_matches

    known = [*SERVICES.values()]
    problems = []
    for name in document.table:
        if name not in known:
            near = get_close_matches(name[:100], known, 1)
            hint = f"; did you mean {near[0]}?" if near else f" (known: {', '.join(known)})"
            problems.append(f"{document.place((name,))}: {dotted((name,))}: unknown table{hint}")
    if problems:
        raise CompositionError(problems[:_MOST_TOLD])


def _told(document: TomlDocument | None, fault: Fault) -> str:
    """A line for a fault: `stores.toml:12: [blobservices.near] size: not a size: "5 apples"`."""
    (*table, last) = fault.keys if len(fault.keys) > 2 else (*fault.keys, "")
    place = f"[{dotted(tuple(filter(None, table)))}]" if any(table) else "composition"
    where = f"{document.place(fault.keys) if fault.keys else document.path}: " if document else ""
    return f"{where}{place}{f' {dotted((last,))}' if last else ''}: {fault.text}"

"""The names of the tables of a composition. Commands look for them in each configuration file, so this imports little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvix_store.services.offer import Service

SERVICES: Mapping[Service, str] = {
    "blobs": "blobservices",
    "directories": "directoryservices",
    "path_infos": "pathinfoservices",
}
"""The services of a composition, with the names of their tables."""


def has_tables(document: Mapping[str, Any]) -> bool:
    """Whether a document has a composition in it."""
    return any(name in document for name in SERVICES.values())

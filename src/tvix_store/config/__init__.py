"""From addresses to stores: the only room that knows all backends. Each name is read from its module when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix_store.config.compose import open_store
    from tvix_store.config.composition.composition import Composition, of_addresses
    from tvix_store.config.composition.reading import read_composition
    from tvix_store.config.places import (
        cache_address,
        is_in_memory,
        local_directories,
        missing_stores,
        prepare_for_pool,
        private_places,
    )
    from tvix_store.config.scheme import Opening, Scheme
    from tvix_store.config.verifying import verified
    from tvix_store.layers.read_only import read_only
    from tvix_store.model.address import Address

_MODULES = {
    "Address": "tvix_store.model.address",
    "Composition": "tvix_store.config.composition.composition",
    "Opening": "tvix_store.config.scheme",
    "Scheme": "tvix_store.config.scheme",
    "cache_address": "tvix_store.config.places",
    "is_in_memory": "tvix_store.config.places",
    "local_directories": "tvix_store.config.places",
    "missing_stores": "tvix_store.config.places",
    "of_addresses": "tvix_store.config.composition.composition",
    "open_store": "tvix_store.config.compose",
    "prepare_for_pool": "tvix_store.config.places",
    "private_places": "tvix_store.config.places",
    "read_composition": "tvix_store.config.composition.reading",
    "read_only": "tvix_store.layers.read_only",
    "verified": "tvix_store.config.verifying",
}
"""Where each name is."""

__all__ = [
    "Address",
    "Composition",
    "Opening",
    "Scheme",
    "cache_address",
    "is_in_memory",
    "local_directories",
    "missing_stores",
    "of_addresses",
    "open_store",
    "prepare_for_pool",
    "private_places",
    "read_composition",
    "read_only",
    "verified",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)

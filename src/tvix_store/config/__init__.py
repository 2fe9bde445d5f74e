"""From addresses to stores: the only room that knows all backends. Each name is read from its module when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix_store.config.compose import (
        cache_address,
        local_directories,
        missing_stores,
        open_store,
        prepare_for_pool,
        private_places,
        verified,
    )
    from tvix_store.config.scheme import Opening, Scheme
    from tvix_store.layers.read_only import read_only
    from tvix_store.model.address import Address

__all__ = [
    "Address",
    "Opening",
    "Scheme",
    "cache_address",
    "local_directories",
    "missing_stores",
    "open_store",
    "prepare_for_pool",
    "private_places",
    "read_only",
    "verified",
]
_MODULES = {
    "Address": "tvix_store.model.address",
    "Opening": "tvix_store.config.scheme",
    "Scheme": "tvix_store.config.scheme",
    "read_only": "tvix_store.layers.read_only",
}
"""Where names are that are not in `compose`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES.get(name, "tvix_store.config.compose")), name)

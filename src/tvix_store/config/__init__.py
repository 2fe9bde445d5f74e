"""From addresses to stores: the only room that knows all backends."""

from tvix_store.config.compose import (
    cache_address,
    check_is_there,
    local_directories,
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
    "check_is_there",
    "local_directories",
    "open_store",
    "prepare_for_pool",
    "private_places",
    "read_only",
    "verified",
]

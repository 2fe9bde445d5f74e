"""Addresses of the backend `memory`: `memory://`."""

from __future__ import annotations

from tvix_store.backends import memory
from tvix_store.config.address import Address
from tvix_store.config.size_rule import read_size_rule
from tvix_store.errors import InvalidError
from tvix_store.services.store import Store


async def open_address(address: Address) -> Store:
    """Open `memory://`; `?size_rule=documented|snix`."""
    if address.host or address.path:
        raise InvalidError(f"{address.text}: nothing follows memory://, since every one is a new store")
    return await memory.open_store(**address.read_parameters({"size_rule": read_size_rule}))

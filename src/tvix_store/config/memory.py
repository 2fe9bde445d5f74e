"""Addresses of the backend `memory`: `memory://`."""

from __future__ import annotations

from dataclasses import replace

from tvix_store.backends import memory
from tvix_store.config.scheme import Opening, Scheme
from tvix_store.config.size_rule import read_size_rule
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.store import Store


async def open_address(address: Address, opening: Opening) -> Store:
    """Open `memory://`; `?size_rule=documented|snix`."""
    if address.host or address.path:
        raise InvalidError(f"{address.text}: nothing follows memory://, since every one is a new store")
    settings = address.read_parameters({"size_rule": read_size_rule})
    return replace(await memory.open_store(store_dir=opening.store_dir or STORE_DIR, **settings), name="memory://")


SCHEME = Scheme(open_address)

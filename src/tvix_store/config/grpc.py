"""Addresses of servers: `grpc+http://host:port`, `grpc+https://host:port`, `grpc+unix:///path`."""

from __future__ import annotations

from tvix_store.config.address import Address
from tvix_store.services.store import Store


async def open_address(address: Address, *, store_dir: str | None = None) -> Store:
    """Open what a server offers; the parameters are those of `grpc.open_store`."""
    from tvix_store.backends import grpc

    return await grpc.open_store(address.text, store_dir=store_dir)

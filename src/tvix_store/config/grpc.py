"""Addresses of servers: `grpc+http://host:port`, `grpc+https://…`, `grpc+unix:///path`, `connect+http://host/path`, `connect+https://…`."""

from __future__ import annotations

from tvix_store.config.scheme import Opening, Scheme
from tvix_store.model.address import Address
from tvix_store.services.offer import Offer


async def open_address(address: Address, opening: Opening) -> Offer:
    """Open what a server offers; the parameters are those of `grpc.open_offer`."""
    from tvix_store.backends import grpc

    return await grpc.open_offer(address.text, store_dir=opening.store_dir)


SCHEME = Scheme(open_address)

"""Addresses of servers: `grpc+http://host:port`, `grpc+https://host:port`, `grpc+unix:///path`."""

from __future__ import annotations

import os

from tvix_store.config.address import Address
from tvix_store.services.store import Store


async def open_address(address: Address) -> Store:
    """Open what a server offers; the parameters are those of `grpc.open_store`."""
    # Read when gRPC is imported: its C core writes to stderr what our errors tell too, such as a failed handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from tvix_store.backends import grpc

    return await grpc.open_store(address.text)

"""Addresses of the path infos that were used last, in memory: `lru://?capacity=1000`."""

from __future__ import annotations

from tvix_store.backends.memory.recent_path_infos import RecentPathInfos
from tvix_store.config.scheme import Opening, Scheme
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.offer import Offer

_CAPACITY = 1000


def _read_capacity(text: str) -> int:
    capacity = int(text)
    if capacity < 1:
        raise ValueError(text)
    return capacity


async def open_address(address: Address, opening: Opening) -> Offer:
    """Open `lru://?capacity=NUMBER`: path infos alone; 1000 unless it says more."""
    if address.host or address.path:
        raise InvalidError(f"{address.text}: nothing follows lru:// but ?capacity=NUMBER")
    capacity = address.read_parameters({"capacity": _read_capacity}).get("capacity", _CAPACITY)
    return Offer(path_infos=RecentPathInfos(capacity), store_dir=opening.store_dir or STORE_DIR)


SCHEME = Scheme(open_address)

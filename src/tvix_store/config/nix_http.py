"""Addresses of upstream caches: `nix+http://host/path`, `nix+https://host/path`."""

from __future__ import annotations

from tvix_store.backends.nix_http import CacheAddress
from tvix_store.config.scheme import Opening, Scheme
from tvix_store.model.address import Address
from tvix_store.services.offer import Offer, Service


async def open_address(address: Address, _: Opening) -> Offer:
    """The offer of `nix+https://host?blob_service=ADDRESS&directory_service=ADDRESS`: path infos, and where their content goes.

    Path infos are kept with the directories. One of the two addresses may be left out, if it is the same. Without both, the content
    goes to the store beside which the cache is given.
    """
    cache = CacheAddress.parse(address.text)
    directories = cache.directory_service or cache.blob_service
    elsewhere: dict[Service, str] = {}
    if directories is not None:
        elsewhere = {"blobs": cache.blob_service or directories, "directories": directories, "path_infos": directories}
    return Offer(substituters=(address.text,), elsewhere=elsewhere)


SCHEME = Scheme(open_address)

"""Addresses of upstream caches: `nix+http://host/path`, `nix+https://host/path`."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.backends.nix_http import CacheAddress
from tvix_store.config.address import Address
from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey
from tvix_store.services.store import Store


async def open_address(
    address: Address, *, store_dir: str | None = None, substituter_public_keys: Sequence[PublicKey] = ()
) -> Store:
    """Open `nix+https://host?blob_service=ADDRESS&directory_service=ADDRESS`: stores that are filled from an upstream cache.

    Path infos are kept with the directories; one of the two addresses may be left out, if it is the same.
    """
    from tvix_store.config.compose import open_store

    cache = CacheAddress.parse(address.text)
    blobs, directories = cache.blob_service, cache.directory_service
    if blobs is None and directories is None:
        raise InvalidError(
            f"{cache.name} has path infos only: give a store beside it, or its content's place as ?blob_service=ADDRESS"
        )
    directories = directories or blobs
    return await open_store(
        blobs=blobs or directories,
        directories=directories,
        path_infos=directories,
        store_dir=store_dir,
        substituters=[address.text],
        substituter_public_keys=substituter_public_keys,
    )

"""Addresses of buckets: `objectstore+s3://bucket/prefix`, `objectstore+file:///path`, and the like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tvix_store.config.scheme import Opening, Scheme
from tvix_store.config.user_directories import cache_directory
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.model.address import Address
from tvix_store.services.store import Store

_PARAMETERS: dict[str, Callable[[str], object]] = {"layout": str, "chunk_average": int, "size_rule": str, "view": str}
_NEEDED = "pip install 'tvix-store[objectstore]'"


async def open_address(address: Address, opening: Opening) -> Store:
    """Open `objectstore+s3://bucket/prefix?layout=packed|snix&chunk_average=BYTES&size_rule=documented|snix&view=DIRECTORY`.

    The first three are settings of the store, which it keeps from its beginning. Below `view`, this machine keeps what it knows of
    a bucket in the packed layout. Other parameters are options of the client.
    """
    try:
        from tvix_store.backends import objectstore
        from tvix_store.backends.objectstore.address import BucketAddress
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "obstore":
            raise
        raise UnsupportedError(f"{address.scheme}: this needs obstore: {_NEEDED}") from None
    bucket = BucketAddress.parse(address, frozenset(_PARAMETERS))
    wanted = replace(address, parameters=bucket.parameters).read_parameters(_PARAMETERS)
    views = _views(bucket.name, wanted.pop("view", None))
    if opening.store_dir is not None:
        wanted["store_dir"] = opening.store_dir
    return await objectstore.open_store(bucket, wanted, views, create=opening.create)


def _views(name: str, given: str | None) -> Path:
    """The directory for what is known of buckets."""
    caches = cache_directory()
    if given is not None:
        return Path(given).absolute()
    if caches is None:
        raise InvalidError(f"{name}: this user has no home; say with view=DIRECTORY where to keep what is known of the bucket")
    return caches / "buckets"


SCHEME = Scheme(open_address)

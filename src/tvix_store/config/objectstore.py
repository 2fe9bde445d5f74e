"""Addresses of buckets: `objectstore+s3://bucket/prefix`, `objectstore+file:///path`, and the like."""

from __future__ import annotations

from tvix_store.config.scheme import Opening, Scheme
from tvix_store.errors import UnsupportedError
from tvix_store.model.address import Address
from tvix_store.services.store import Store

_NEEDED = "pip install 'tvix-store[objectstore]'"


async def open_address(address: Address, opening: Opening) -> Store:
    """Open `objectstore+s3://bucket/prefix?layout=snix&chunk_average=BYTES&size_rule=documented|snix`.

    These three are settings of the store, which it keeps from its beginning. Other parameters are options of the client.
    """
    try:
        from tvix_store.backends import objectstore
        from tvix_store.backends.objectstore.address import BucketAddress
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise UnsupportedError(f"{address.scheme}: this needs obstore: {_NEEDED}") from None
    bucket = BucketAddress.parse(address, frozenset(("layout", "chunk_average", "size_rule")))
    wanted: dict[str, object] = dict(bucket.parameters)
    if "chunk_average" in wanted:
        wanted["chunk_average"] = int(bucket.parameters["chunk_average"])
    if opening.store_dir is not None:
        wanted["store_dir"] = opening.store_dir
    return await objectstore.open_store(bucket, wanted, create=opening.create)


SCHEME = Scheme(open_address)

"""The schemes of addresses, and what opens them: imported when one is used.

A package that has a backend of its own names its scheme in the entry points `tvix_store.schemes`; the value is a `Scheme`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from tvix_store.config.scheme import Opening, Scheme
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, without_secrets
from tvix_store.services.offer import Offer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SCHEMES = {
    "local": "tvix_store.config.local",
    "memory": "tvix_store.config.memory",
    "grpc+http": "tvix_store.config.grpc",
    "grpc+https": "tvix_store.config.grpc",
    "grpc+unix": "tvix_store.config.grpc",
    "connect+http": "tvix_store.config.grpc",
    "connect+https": "tvix_store.config.grpc",
    "lru": "tvix_store.config.lru",
    "postgresql": "tvix_store.config.postgresql",
    "postgres": "tvix_store.config.postgresql",
    "objectstore+file": "tvix_store.config.objectstore",
    "objectstore+memory": "tvix_store.config.objectstore",
    "objectstore+s3": "tvix_store.config.objectstore",
    "objectstore+gs": "tvix_store.config.objectstore",
    "objectstore+az": "tvix_store.config.objectstore",
    "objectstore+http": "tvix_store.config.objectstore",
    "objectstore+https": "tvix_store.config.objectstore",
}
"""Our own, each with the module that has its SCHEME."""
UPSTREAMS = ("nix+http", "nix+https")
"""Binary caches. They offer no services: what comes from there is kept in a store, as a composition says."""
ENTRY_POINTS = "tvix_store.schemes"
_ELSEWHERE = {
    "bigtable": "Bigtable is a backend of snix; a store in a directory is local:///path",
    "cache": "a cache before another store is a type of a composition: --store-composition FILE",
    "cockroachdb": "CockroachDB speaks as PostgreSQL does: postgresql:{rest}",
    "combined": "two stores as one are a type of a composition: --store-composition FILE",
    "file": "a store in a directory is local:///path; with a binary cache in one go copy --from, copy --to and --substituters",
    "grpc": "a server is grpc+http:{rest}",
    "grpcs": "a server with TLS is grpc+https:{rest}",
    "http": "a server is grpc+http:{rest} or, where gRPC does not pass, connect+http:{rest}; a binary cache is nix+http:{rest}",
    "https": "a server is grpc+https:{rest} or, where gRPC does not pass, connect+https:{rest}; a binary cache is nix+https:{rest}",
    "keyfile-signing": "signing is a type of a composition: --store-composition FILE; a daemon signs with --signing-key-file",
    "localhost": "a server is grpc+http://localhost:{rest}",
    "objectstore": "the address of a bucket is objectstore+s3://bucket/prefix, or with file, memory, gs, az, http or https",
    "redb": "redb is a file of snix; a store in a directory is local:///path",
    "s3": "a store in a bucket is objectstore+s3:{rest}; parameters of Nix are options there: endpoint, region, scheme, profile",
    "sled": "sled is a database of tvix; a store in a directory is local:///path",
    "ssh": "nothing goes over SSH here; start tvix-store daemon there, and write grpc+http://host:port",
    "ssh-ng": "nothing goes over SSH here; start tvix-store daemon there, and write grpc+http://host:port",
    "unix": "a server on a socket is grpc+unix:///path",
}
"""What to say of schemes that people know from tvix, snix and Nix: by the scheme, or its part up to a `+`."""


async def open_address(text: str, opening: Opening) -> Offer:
    """What stands at an address.

    Raises:
        InvalidError: the address is malformed, or of an unknown scheme.
        StoreError: as the backend's `open_store`.
    """
    address = Address.parse(text)
    offer = await scheme_of(address).open(address, opening)
    return offer if offer.name else replace(offer, name=without_secrets(text))


def scheme_of(address: Address) -> Scheme:
    """How an address is opened, with what that needs imported.

    Raises:
        InvalidError: the scheme is unknown.
    """
    check_scheme(address)
    own = SCHEMES.get(address.scheme)
    scheme: object = import_module(own).SCHEME if own is not None else _installed()[address.scheme].load()
    if not isinstance(scheme, Scheme):
        raise InvalidError(f"the entry point {address.scheme} of {ENTRY_POINTS} is no Scheme, but {scheme!r}")
    return scheme


def check_scheme(address: Address) -> None:
    """Raise InvalidError where the scheme is unknown. Nothing is imported for it."""
    if address.scheme not in SCHEMES and address.scheme not in _installed():
        raise _unknown(address)


def hint_of(address: Address) -> str | None:
    """What to say of a scheme that people know from elsewhere."""
    hint = _ELSEWHERE.get(address.scheme.removeprefix("nix+").partition("+")[0])
    return hint and hint.format(rest=without_secrets(address.text).partition(":")[2])


@cache
def _installed() -> dict[str, EntryPoint]:
    """The schemes of other packages. To look for them takes some milliseconds, as much as importing what looks."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _unknown(address: Address) -> InvalidError:
    from difflib import get_close_matches

    what = f"{without_secrets(address.text)}: unknown scheme {address.scheme!r}"
    if elsewhere := hint_of(address):
        return InvalidError(f"{what}; {elsewhere}")
    known = [*SCHEMES, *UPSTREAMS, *_installed()]
    hint = ""
    if near := get_close_matches(address.scheme, known, n=1):
        hint = f"; did you mean {near[0]}://?"
    elif ":/" not in address.text:
        hint = "; a path with a colon begins with ./"
    return InvalidError(f"{what} (known: {', '.join(known)}){hint}")

"""The schemes of addresses, and what opens them: imported when one is used."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib import import_module

from tvix_store.config.address import Address, without_secrets
from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey
from tvix_store.services.store import Store

SCHEMES = {
    "local": "tvix_store.config.local:open_address",
    "memory": "tvix_store.config.memory:open_address",
    "grpc+http": "tvix_store.config.grpc:open_address",
    "grpc+https": "tvix_store.config.grpc:open_address",
    "grpc+unix": "tvix_store.config.grpc:open_address",
    "nix+http": "tvix_store.config.nix_http:open_address",
    "nix+https": "tvix_store.config.nix_http:open_address",
}
_ELSEWHERE = {
    "bigtable": "Bigtable is a backend of snix",
    "cache": "a cache of two stores is a composition of snix; a daemon before other caches has --substituters",
    "combined": "two stores as one are a composition of snix; a daemon before other caches has --substituters",
    "file": "a store in a directory is local:///path",
    "http": "a server is grpc+http://host:port, a binary cache nix+http://host/path",
    "https": "a server is grpc+https://host:port, a binary cache nix+https://host/path",
    "keyfile-signing": "signing is a composition of snix; a daemon signs with --signing-key-file",
    "lru": "an LRU cache is a service of snix; what stays in memory is memory://",
    "objectstore": "object storage is not among our backends yet; a store in a directory is local:///path",
    "redb": "redb is a file of snix; a store in a directory is local:///path",
    "s3": "object storage is not among our backends yet; a store in a directory is local:///path",
    "sled": "sled is a database of tvix; a store in a directory is local:///path",
    "unix": "a server on a socket is grpc+unix:///path",
}
"""What to say of schemes that people know from tvix, snix and Nix: by the scheme, or its part up to a `+`."""
_CACHE = "nix+"
_SERVER = "grpc+"
_PLACES = {"blob_service", "directory_service"}


async def open_address(
    text: str, *, store_dir: str | None = None, substituter_public_keys: Sequence[PublicKey] = (), as_worker: bool = False
) -> Store:
    """The store at an address; a worker of a pool, which does one thing after the other, opens a local one without threads.

    `store_dir` is for a store whose paths depend on it, and `substituter_public_keys` for a cache elsewhere.

    Raises:
        InvalidError: the address is malformed, or of an unknown scheme.
        StoreError: as the backend's `open_store`.
    """
    address = Address.parse(text)
    if as_worker and address.scheme == "local":
        address = replace(address, parameters={**address.parameters, "threads": "0"})
    if address.scheme.startswith(_CACHE):
        return await _opener(address)(address, store_dir=store_dir, substituter_public_keys=substituter_public_keys)
    if address.scheme == "local" or address.scheme.startswith(_SERVER):
        return await _opener(address)(address, store_dir=store_dir)
    return await _opener(address)(address)


def prepare(text: str) -> None:
    """Import what opens the store at an address, for processes that are forked to open it each.

    Raises:
        InvalidError: as `open_address`.
    """
    _opener(Address.parse(text))


def _opener(address: Address) -> Callable[..., Awaitable[Store]]:
    target = SCHEMES.get(address.scheme)
    if target is None:
        near = difflib.get_close_matches(address.scheme, SCHEMES, n=1)
        elsewhere = _ELSEWHERE.get(address.scheme.partition("+")[0])
        if elsewhere:
            hint = f"; {elsewhere}"
        elif near:
            hint = f"; did you mean {near[0]}://?"
        elif ":/" not in address.text:
            hint = "; a path with a colon begins with ./"
        else:
            hint = ""
        raise InvalidError(
            f"{without_secrets(address.text)}: unknown scheme {address.scheme!r} (known: {', '.join(SCHEMES)}){hint}"
        )
    module, _, function = target.partition(":")
    opener: Callable[..., Awaitable[Store]] = getattr(import_module(module), function)
    return opener


def has_no_place(text: str) -> bool:
    """Whether this is the address of a binary cache elsewhere that does not say where content goes that comes from it."""
    return text.startswith(_CACHE) and not _PLACES & Address.parse(text).parameters.keys()

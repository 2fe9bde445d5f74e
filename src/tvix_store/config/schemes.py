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
_CACHE = "nix+"
_PLACES = {"blob_service", "directory_service"}


async def open_address(
    text: str, *, store_dir: str | None = None, substituter_public_keys: Sequence[PublicKey] = (), as_member: bool = False
) -> Store:
    """The store at an address; a member of a crew, which does one thing after the other, opens a local one without threads.

    `store_dir` and `substituter_public_keys` are for a cache elsewhere, whose paths depend on them.

    Raises:
        InvalidError: the address is malformed, or of an unknown scheme.
        StoreError: as the backend's `open_store`.
    """
    address = Address.parse(text)
    if as_member and address.scheme == "local":
        address = replace(address, parameters={**address.parameters, "threads": "0"})
    if address.scheme.startswith(_CACHE):
        return await _opener(address)(address, store_dir=store_dir, substituter_public_keys=substituter_public_keys)
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
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise InvalidError(
            f"{without_secrets(address.text)}: unknown scheme {address.scheme!r} (known: {', '.join(SCHEMES)}){hint}"
        )
    module, _, function = target.partition(":")
    opener: Callable[..., Awaitable[Store]] = getattr(import_module(module), function)
    return opener


def has_no_place(text: str) -> bool:
    """Whether this is the address of a binary cache elsewhere that does not say where content goes that comes from it."""
    return text.startswith(_CACHE) and not _PLACES & Address.parse(text).parameters.keys()

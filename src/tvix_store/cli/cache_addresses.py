"""Which addresses are those of binary caches: these are no stores, and nothing is composed there."""

from __future__ import annotations

from typing import TypeGuard

from tvix_store.model.address import Address

_SCHEMES = ("nix+http", "nix+https", "file", "nix+file")


def is_cache(address: str | None, *more: str) -> TypeGuard[str]:
    """Whether an address is that of a binary cache; with `more`, also one of these schemes.

    What caches are made of takes long to import, where they speak HTTP. So the scheme alone is looked at.

    Raises:
        InvalidError: the address is malformed.
    """
    return address is not None and Address.parse(address).scheme in (*_SCHEMES, *more)

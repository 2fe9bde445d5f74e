"""Scheme: how the addresses of one scheme are opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tvix_store.config.address import Address
from tvix_store.services.offer import Offer


@dataclass(frozen=True, slots=True)
class Opening:
    """What is wanted of an address, beside what its parameters say.

    store_dir: the directory of Nix's store that path infos are for; None means as the store was made
    as_worker: whether this process does one thing after the other, as a member of a pool, so that threads would not help it
    """

    store_dir: str | None = None
    as_worker: bool = False


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the addresses of a scheme are opened.

    open: the offer at an address. It raises InvalidError where the address is malformed
    works_here: whether the process that opens such a store does its work, so that more processes do more
    """

    open: Callable[[Address, Opening], Awaitable[Offer]]
    works_here: bool = False

"""Scheme: how the addresses of one scheme are opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tvix_store.model.address import Address
from tvix_store.services.offer import Offer


@dataclass(frozen=True, slots=True)
class Opening:
    """The requirements on an address, beside its parameters.

    store_dir: The directory of Nix's store that path infos are for. None means as the store was made.
    as_worker: Whether this process does one task after the other, as a member of a pool. Threads would not help it.
    create: Whether a store on this machine is made where there is none. Otherwise that is a NoStoreError.
    scrub_days: In how many days a store on this machine reads all of its content once, to look for damage. 0 is never.
    """

    store_dir: str | None = None
    as_worker: bool = False
    create: bool = True
    scrub_days: float = 0


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the addresses of a scheme are opened.

    open: Opens the offer at an address. Raises InvalidError for a malformed address.
    works_here: Whether the process that opens such a store does its work. More processes then do more.
    """

    open: Callable[[Address, Opening], Awaitable[Offer]]
    works_here: bool = False

"""Where the stores of a composition lie on this machine, and what follows from that, without opening them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from tvix_store.config.composition.composition import Composition
from tvix_store.config.schemes import scheme_of
from tvix_store.config.user_directories import cache_directory
from tvix_store.errors import UnsupportedError
from tvix_store.model.address import Address, without_secrets


def missing_stores(composition: Composition) -> tuple[str, ...]:
    """The embedded stores, or named caches of these, in a composition that are not there.

    Each is told as `store in /path`.

    Raises:
        NoStoreError: something else is there.
        InvalidError: an address is malformed.
    """
    parsed = _local(composition)
    if not parsed:
        return ()
    from tvix_store.config import local  # which takes long, and clients of servers do without

    missing = map(local.missing_store, parsed)
    return tuple(dict.fromkeys(each for each in missing if each is not None))


def cache_address(composition: Composition, name: str, quota: int | None = None, retention: str | None = None) -> str:
    """The address of a named cache of the store that is a composition.

    Raises:
        UnsupportedError: the store is not one directory: others have no named caches.
        InvalidError: an address is malformed.
    """
    only = composition.only_leaf()
    if only is None or (address := Address.parse(only)).scheme != "local":
        raise UnsupportedError(f"only a store in one directory has named caches, not {shown(composition)}")
    bound = ("" if quota is None else f"&quota={quota}") + ("" if retention is None else f"&retention={retention}")
    if address.text == address.path:  # a path alone
        return f"local://{quote(str(Path(address.path).absolute()))}?cache={name}{bound}"
    return f"{address.text}{'&' if address.parameters else '?'}cache={name}{bound}"


def local_directories(composition: Composition) -> tuple[Path, ...]:
    """The directories of the local stores in a composition."""
    from tvix_store.config.local_directory import directory_of

    return tuple(dict.fromkeys(map(directory_of, _local(composition))))


def private_places(composition: Composition) -> tuple[str, ...]:
    """The directories in which a daemon before a composition keeps files. Its clients are not told of them."""
    import tempfile  # 4 ms of a start, and few need it

    own = [Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"tvix-store-{os.geteuid()}", cache_directory()]
    local = local_directories(composition)
    places = {str(place) for each in (*own, *local) if each is not None for place in (each, each.absolute()) if place.is_absolute()}
    # The longest first: one may lie in another.
    return tuple(sorted(places - {"/"}, key=len, reverse=True))


def is_in_memory(composition: Composition) -> bool:
    """Whether something is kept in the memory of a process, so that no other process has it."""
    return any(Address.parse(each).scheme in ("memory", "objectstore+memory") for each in composition.leaves())


def prepare_for_pool(composition: Composition) -> bool:
    """Whether more processes would help with a composition; then what opens it is imported.

    They would where who opens a store does its work, as with a directory on this machine.
    """
    works_here = [scheme_of(Address.parse(each)).works_here for each in composition.leaves()]
    return all(works_here) and not composition.upstreams()


def shown(composition: Composition) -> str:
    """The addresses of a composition, for messages."""
    return " and ".join(dict.fromkeys(map(without_secrets, composition.addresses.values())))


def _local(composition: Composition) -> list[Address]:
    parsed = map(Address.parse, composition.leaves())
    return [each for each in parsed if each.scheme == "local"]

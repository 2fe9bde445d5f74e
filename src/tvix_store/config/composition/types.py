"""The types of a composition, imported when one is used.

A package that has a type of its own names it in the entry points `tvix_store.types`; the value is a class as in `node.py`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from tvix_store.config.composition.node import Layer, Leaf, StoreLayer, Terms
from tvix_store.errors import InvalidError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_LEAVES = "tvix_store.config.composition.leaves"
_LAYERS = "tvix_store.config.composition.layers"
_STORE_LAYERS = "tvix_store.config.composition.store_layers"
TYPES = {
    "address": ("tvix_store.config.composition.at_address", "AtAddress"),
    "memory": (_LEAVES, "Memory"),
    "local": (_LEAVES, "Local"),
    "grpc": (_LEAVES, "Grpc"),
    "objectstore": (_LEAVES, "ObjectStore"),
    "postgresql": (_LEAVES, "PostgreSql"),
    "lru": (_LEAVES, "Lru"),
    "cache": (_LAYERS, "Cache"),
    "combined": (_LAYERS, "Cache"),
    "retrying": (_LAYERS, "Retrying"),
    "observed": (_LAYERS, "Observed"),
    "read_only": (_LAYERS, "ReadOnly"),
    "nix": (_STORE_LAYERS, "Nix"),
    "keyfile-signing": (_STORE_LAYERS, "KeyfileSigning"),
}
"""Our own, each with its module and its class."""
ENTRY_POINTS = "tvix_store.types"
_DIRECTORY = 'a store in a directory is type = "local" with a path'
_UPSTREAMS = 'several upstreams are several caches of type = "nix", one the near of the next, or --substituters with priorities'
_ELSEWHERE = {
    "bigtable": f"Bigtable is a backend of snix; {_DIRECTORY}",
    "http": 'a binary cache is type = "nix" with a base_url, a server type = "grpc" with a url',
    "priority": _UPSTREAMS,
    "race": _UPSTREAMS,
    "redb": f"redb is a file of snix; {_DIRECTORY}. tvix-store copy moves the content out of a daemon of snix",
    "s3": 'object storage is type = "objectstore" with an object_store_url',
    "simplefs": _DIRECTORY,
    "sled": f"sled is a database of tvix; {_DIRECTORY}",
}
"""What to say of types that people know from snix and tvix."""


def type_of(name: str) -> type[Terms]:
    """The type of a name.

    Raises:
        InvalidError: there is none.
    """
    if name in TYPES:
        module, attribute = TYPES[name]
        found: object = getattr(import_module(module), attribute)
    elif (entry := _installed().get(name)) is not None:
        found = entry.load()
    else:
        raise _unknown(name)
    if not (isinstance(found, type) and issubclass(found, Leaf | Layer | StoreLayer)):
        raise InvalidError(f"the entry point {name} of {ENTRY_POINTS} is no type of a composition, but {found!r}")
    return found


@cache
def _installed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _unknown(name: str) -> InvalidError:
    if name in _ELSEWHERE:
        return InvalidError(f"unknown type {name!r}; {_ELSEWHERE[name]}")
    known = [*TYPES, *_installed()]
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return InvalidError(f"unknown type {name!r:.60} (known: {', '.join(known)})" + (f"; did you mean {near[0]}?" if near else ""))

"""PackageName: what the name of a store path says of the package, as Nix reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tvix_store.model.store_path import StorePath

_VERSION = re.compile(r"-(?=[^A-Za-z-])")
"""Source: nix, src/libstore/names.cc, DrvName: the version begins behind the first dash that no letter follows."""
_OUTPUT = re.compile(r"-([a-z]+)\Z")
_PART = re.compile(r"\d+|[A-Za-z]+")
VersionKey: TypeAlias = tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class PackageName:
    """`go-1.22.1-doc` is the output `doc` of the package `go` in version `1.22.1`. Output and version may be empty."""

    package: str
    version: str
    output: str

    @classmethod
    def of(cls, name: str) -> PackageName:
        """Take the name of a store path apart."""
        begin = _VERSION.search(name)
        if begin is None:
            return cls(name, "", "")
        version = name[begin.end() :]
        output = _OUTPUT.search(version)
        return cls(name[: begin.start()], version[: output.start()] if output else version, output[1] if output else "")

    @property
    def version_key(self) -> VersionKey:
        """Orders versions: numbers by their value, and behind words."""
        return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PART.findall(self.version))


def nearest_first(path: StorePath, others: Iterable[StorePath]) -> list[StorePath]:
    """Other versions of the package of `path`, without itself: older ones first, the nearest of them first; then newer ones."""
    own = PackageName.of(path.name).version_key
    keys = {each: PackageName.of(each.name).version_key for each in others if each != path}
    older = sorted((each for each, key in keys.items() if key <= own), key=keys.__getitem__, reverse=True)
    return older + sorted((each for each, key in keys.items() if key > own), key=keys.__getitem__)

"""The paths that Nix has built, as it tells its post-build-hook. Nix waits for that, so this imports little."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from tvix_store.errors import InvalidError

_PATHS, _DERIVATION = "OUT_PATHS", "DRV_PATH"
"""The variables of the hook. Source: nix, doc/manual, conf-file, post-build-hook."""
_OUTPUTS = re.compile(rb'Derive\(\[((?:\("[^"]*","[^"]*","[^"]*","[^"]*"\),?)+)\]')
"""Where a derivation begins, with its outputs: name, path, and hash. Source: nix, src/libstore/derivations.cc, unparse."""
_PATH = re.compile(rb'\("[^"]*","([^"]*)"')


def is_called_by_nix() -> bool:
    return _DERIVATION in os.environ or _PATHS in os.environ


def built_paths(nix_store: str | None) -> tuple[str, ...]:
    """The paths that were built.

    Nix 2.8.0 leaves them out, and so do 2.30 and 2.31 where something is built again. The derivation has them too, unless they
    follow from their content (an experiment of Nix). See https://github.com/NixOS/nix/issues/6446 and 14287.

    Raises:
        InvalidError: Nix tells no path.
        OSError: the derivation cannot be read.
    """
    paths = os.environ.get(_PATHS, "").split()
    if not paths and (derivation := os.environ.get(_DERIVATION)):
        paths = list(_outputs(derivation, nix_store))
    if not paths:
        raise InvalidError(f"Nix tells no path: ${_PATHS} is empty, and the derivation in ${_DERIVATION} has none")
    return tuple(paths)


def _outputs(derivation: str, nix_store: str | None) -> Iterator[str]:
    if not os.path.exists(derivation):
        from pathlib import Path

        from tvix_store.operations.paths.nix_store import NixStore

        directory, name = os.path.split(derivation)
        derivation = str(Path(NixStore.at(nix_store, directory).directory, name))
    with open(derivation, "rb") as file:
        found = _OUTPUTS.match(file.read())
    for path in _PATH.finditer(found[1] if found else b""):
        if path[1]:
            yield os.fsdecode(path[1])

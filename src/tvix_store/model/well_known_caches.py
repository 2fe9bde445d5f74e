"""Public caches whose keys are known without being told."""

from __future__ import annotations

KEYS = {"cache.nixos.org": "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="}
"""Their keys, by host. Nix has the same key built in. Source: nix, src/libstore/globals.hh, `trusted-public-keys`."""
KEY_NAMES = tuple(key.partition(":")[0] for key in KEYS.values())
"""The names of the keys."""

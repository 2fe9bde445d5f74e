"""Which keys a cache is believed by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.http.nix import Nix
from tvix_store.config.caches import believed_keys, parse_cache
from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey, SecretKey

OURS, THEIRS = (SecretKey.generate(name).public for name in ("ours-1", "theirs-1"))
NIXOS = PublicKey.parse("cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=")


@pytest.mark.parametrize(
    "url",
    ["https://cache.nixos.org", "https://cache.nixos.org/", "https://Cache.NixOS.org?priority=10", "nix+https://cache.nixos.org"],
)
def test_the_key_of_a_well_known_cache_is_built_in(url: str) -> None:
    assert believed_keys(parse_cache(url), []) == (NIXOS,)


def test_it_is_the_key_that_nix_has_built_in(tmp_path: Path) -> None:
    """By the documentation of its settings: a packager may have changed the configuration."""
    assert str(NIXOS) in Nix(tmp_path / "nix", tmp_path / "nix/store")("nix", "show-config", "--json")


def test_keys_in_the_url_replace_all_others() -> None:
    assert believed_keys(parse_cache(f"https://cache.nixos.org?trusted-public-keys={THEIRS}"), [OURS]) == (THEIRS,)


def test_keys_for_all_caches_are_believed_beside_the_well_known_one() -> None:
    assert believed_keys(parse_cache("https://cache.nixos.org"), [OURS]) == (OURS, NIXOS)
    assert believed_keys(parse_cache("https://cache.example.org"), [OURS]) == (OURS,)


@pytest.mark.parametrize("url", ["https://cache.nixos.org.example.org", "https://nixos.org", "https://example.org/cache.nixos.org"])
def test_another_host_has_no_key(url: str) -> None:
    with pytest.raises(InvalidError, match="there is no key to check its signatures with"):
        believed_keys(parse_cache(url), [])

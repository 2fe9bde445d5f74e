"""What an operator may tell the binary cache."""

from __future__ import annotations

from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey, SecretKey

COMPRESSIONS = ("zstd", "none")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How the cache presents itself, and what it takes.

    priority: among a client's caches; the lowest number is asked first (cache.nixos.org has 40)
    want_mass_query: whether clients should ask for many paths at once
    nar_compression: what narinfos offer, `zstd` or `none`
    signing_keys: sign every narinfo that is served
    trusted_keys: their signatures stand before those by others
    read_only: nothing is taken
    max_nar_size: bytes of the largest NAR that is taken
    max_nar_entries: entries of the largest NAR that is taken, all directories together
    body_timeout: seconds that a client may be silent in the middle of a body
    """

    priority: int = 40
    want_mass_query: bool = True
    nar_compression: str = "zstd"
    signing_keys: tuple[SecretKey, ...] = ()
    trusted_keys: tuple[PublicKey, ...] = ()
    read_only: bool = False
    max_nar_size: int = 1 << 40
    max_nar_entries: int = 1_000_000
    body_timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.nar_compression not in COMPRESSIONS:
            raise InvalidError(f"unknown NAR compression {self.nar_compression!r} (known: {', '.join(COMPRESSIONS)})")

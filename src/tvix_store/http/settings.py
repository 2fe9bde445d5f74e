"""Settings of the binary cache."""

from __future__ import annotations

from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey, SecretKey

COMPRESSIONS = ("zstd", "none")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How the cache presents itself, and the bounds of uploads.

    priority: Rank among a client's caches. A client asks the lowest number first (cache.nixos.org has 40).
    want_mass_query: Whether clients should ask for many paths at once.
    nar_compression: The compression that narinfos offer, `zstd` or `none`.
    waits_for_nars: Whether the narinfo of a path that only an upstream has waits until its NAR was fetched, and is signed like all
        others. Else it comes at once, with the signatures of the upstream alone.
    signing_keys: Keys that sign every narinfo that is served.
    trusted_keys: Keys whose signatures come first in a narinfo.
    read_only: Whether all uploads are refused.
    max_nar_size: Bytes of the largest NAR that is accepted, decompressed.
    max_nar_entries: Entries of the largest NAR that is accepted, all directories together.
    body_timeout: Seconds in which a client has to send 256 bytes more of a body.
    private_places: Paths of directories that clients are not told of.
    """

    priority: int = 40
    want_mass_query: bool = True
    nar_compression: str = "zstd"
    waits_for_nars: bool = False
    signing_keys: tuple[SecretKey, ...] = ()
    trusted_keys: tuple[PublicKey, ...] = ()
    read_only: bool = False
    max_nar_size: int = 1 << 40
    max_nar_entries: int = 1_000_000
    body_timeout: float = 30.0
    private_places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.nar_compression not in COMPRESSIONS:
            raise InvalidError(f"unknown NAR compression {self.nar_compression!r} (known: {', '.join(COMPRESSIONS)})")

"""CacheTerms: the terms of the use of a binary cache, as Nix writes them in its URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, without_secrets
from tvix_store.model.signature import PublicKey

_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""As Nix reads them."""


def _read_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(text)
    return int(text)


def _read_keys(text: str) -> tuple[PublicKey, ...]:
    return tuple(map(PublicKey.parse, text.split()))


_PARAMETERS: dict[str, Callable[[str], object]] = {
    "trusted-public-keys": _read_keys,
    "require-signatures": _SWITCH.__getitem__,
    "trusted": _SWITCH.__getitem__,
    "priority": _read_number,
    "narinfo-cache-negative-ttl": _read_number,
    "store": str,
}
_FIELDS = {
    "trusted-public-keys": "public_keys",
    "priority": "priority",
    "narinfo-cache-negative-ttl": "negative_ttl",
    "store": "store_dir",
}
"""The parameters that are fields of CacheTerms as they are."""
MEANINGLESS = frozenset(
    (
        "compression",
        "compression-level",
        "index-debug-info",
        "local-nar-cache",
        "log",
        "log-compression",
        "ls-compression",
        "narinfo-compression",
        "parallel-compression",
        "path-info-cache-size",
        "real",
        "root",
        "secret-key",
        "secret-keys",
        "state",
        "system-features",
        "tls-certificate",
        "tls-private-key",
        "want-mass-query",
        "write-nar-listing",
    )
)
"""Other parameters that Nix 2.8 to 2.34 takes in the URL of a binary cache, or of a store with files (`nix help-stores`).

They say how to write into the cache, and how Nix itself uses it. A reader here ignores them."""
COMPRESSIONS = ("zstd", "none")
"""How NARs are written."""
DEFAULT_NEGATIVE_TTL = 30.0


@dataclass(frozen=True, slots=True)
class CacheTerms:
    """The terms of the use of a cache.

    public_keys: Trusted keys. A path needs a signature by one of them.
    require_signatures: Whether unsigned paths are refused. Nix calls the opposite `trusted`.
    priority: Rank among upstreams; the lowest is asked first. None takes the priority that the cache states.
    negative_ttl: Seconds for which the answer "the cache lacks this path" is remembered.
    store_dir: The store directory that the cache is for, or None.
    ignored: Names of Nix's parameters in the URL that have no meaning here.
    """

    public_keys: tuple[PublicKey, ...] = ()
    require_signatures: bool = True
    priority: int | None = None
    negative_ttl: float = DEFAULT_NEGATIVE_TTL
    store_dir: str | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, address: Address, also: Mapping[str, Callable[[str], object]] | None = None) -> tuple[CacheTerms, dict[str, Any]]:
        """The terms in an address, and the values of the parameters that it may have `also`. Keep `without_ignored` before.

        Raises:
            InvalidError: as `Address.read_parameters`, or two parameters contradict each other.
        """
        values = address.read_parameters({**_PARAMETERS, **(also or {})})
        terms = replace(
            cls(require_signatures=_requires_signatures(without_secrets(address.text), values)),
            **{_FIELDS[name]: value for name, value in values.items() if name in _FIELDS},
        )
        return terms, {name: value for name, value in values.items() if name not in _PARAMETERS}

    def check_store_dir(self, name: str, store_dir: str) -> None:
        """Raise InvalidError where the cache called `name` is for another store directory."""
        if self.store_dir not in (None, store_dir):
            raise InvalidError(f"{name}: it is a cache for {self.store_dir!r}, not for {store_dir}")


@dataclass(frozen=True, slots=True)
class WriteTerms:
    """How a cache is written, as its URL says.

    compression: One of COMPRESSIONS, for NARs.
    secret_keys: The files of the keys that sign.
    ignored: Names of Nix's parameters in the URL that have no meaning here.
    """

    compression: str = "zstd"
    secret_keys: tuple[Path, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def read(cls, address: Address) -> WriteTerms:
        """Read `?compression=none&secret-key=FILE`. Nix 2.34 takes several `secret-keys` too, with commas between.

        Raises:
            InvalidError: as `Address.read_parameters`.
        """
        meaningless = MEANINGLESS - {"compression", "secret-key", "secret-keys"}
        values = address.read_parameters(
            {"compression": _read_compression, "secret-key": str, "secret-keys": str, **dict.fromkeys(sorted(meaningless), str)}
        )
        named = [values.get("secret-key", ""), *values.get("secret-keys", "").split(",")]
        return cls(
            values.get("compression", "zstd"),
            tuple(dict.fromkeys(map(Path, filter(None, named)))),
            tuple(name for name in values if name in meaningless),
        )


def _read_compression(text: str) -> str:
    if text not in COMPRESSIONS:
        raise InvalidError(f"NARs are written as {' or '.join(COMPRESSIONS)}, not as {text[:20]!r}")
    return text


def without_ignored(text: str) -> tuple[str, list[str]]:
    """The address without the parameters that mean nothing here, and the names of these."""
    base, _, query = text.partition("?")
    kept: list[str] = []
    ignored: dict[str, None] = {}
    for pair in query.split("&"):
        name = pair.partition("=")[0]
        if name in MEANINGLESS:
            ignored[name] = None
        else:
            kept.append(pair)
    return f"{base}?{'&'.join(kept)}" if any(kept) else base, list(ignored)


def _requires_signatures(shown: str, values: Mapping[str, bool]) -> bool:
    """Nix's `trusted` is the opposite of `require-signatures`."""
    said = {values[name] == required for name, required in (("require-signatures", True), ("trusted", False)) if name in values}
    if len(said) > 1:
        raise InvalidError(f"{shown}: trusted and require-signatures say the opposite; leave one of them out")
    return said.pop() if said else True

"""CacheAddress: the URL of an upstream cache, as Nix writes it, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yarl import URL

from tvix_store.backends.nix_http.credentials import Credentials
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, not_an_address, without_secrets
from tvix_store.model.signature import PublicKey

_SCHEMES = ("http", "https", "nix+http", "nix+https")
_WHAT = "a binary cache", "http://… or https://…"
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
    "blob_service": str,
    "directory_service": str,
}
_FIELDS = {
    "trusted-public-keys": "public_keys",
    "priority": "priority",
    "narinfo-cache-negative-ttl": "negative_ttl",
    "store": "store_dir",
    "blob_service": "blob_service",
    "directory_service": "directory_service",
}
"""The parameters that are fields of a CacheAddress as they are."""
_MEANINGLESS = frozenset(
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

They say how to write into the cache, and how Nix itself uses it."""
DEFAULT_NEGATIVE_TTL = 30.0


@dataclass(frozen=True, slots=True)
class CacheAddress:
    """The place of an upstream cache, and the terms of its use.

    url: URL of the cache, without credentials and parameters. Its path ends with a slash.
    credentials: User and password of the URL, or None.
    public_keys: Trusted keys. A path needs a signature by one of them.
    require_signatures: Whether unsigned paths are refused. Nix calls the opposite `trusted`.
    priority: Rank among upstreams; the lowest is asked first. None takes the priority that the cache states.
    negative_ttl: Seconds for which the answer "the cache lacks this path" is remembered.
    store_dir: The store directory that the cache is for, or None.
    blob_service, directory_service: Addresses of the stores to fill, or None.
    ignored: Names of Nix's parameters in the URL that have no meaning here.
    """

    url: URL
    credentials: Credentials | None = None
    public_keys: tuple[PublicKey, ...] = ()
    require_signatures: bool = True
    priority: int | None = None
    negative_ttl: float = DEFAULT_NEGATIVE_TTL
    store_dir: str | None = None
    blob_service: str | None = None
    directory_service: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The URL, for messages."""
        return str(self.url).rstrip("/")

    @classmethod
    def parse(cls, text: str) -> CacheAddress:
        """Read `http(s)://host/path?name=value&…`, or the same with `nix+` before it.

        A `+` in a parameter is a plus, as Nix has it, and keys need it.

        Raises:
            InvalidError: `text` is malformed, or has a parameter that is unknown, given twice, or has an impossible value.
        """
        kept, ignored = without_ignored(text)
        address = Address.parse_url(kept, *_WHAT)
        location = address.location
        if address.scheme not in _SCHEMES:
            raise not_an_address(location, *_WHAT)
        if not kept.isascii() or not kept.isprintable() or " " in location:
            raise not_an_address(location, _WHAT[0], "unusual characters as %XX")
        try:
            place = location.partition(":")[2].rstrip("/")
            url = URL(f"{address.scheme.removeprefix('nix+')}:{place}/", encoded=True)
            user, password = url.user, url.password
            usable = bool(url.host and url.port)
        except ValueError:
            usable = False
        if not usable:
            raise not_an_address(location, *_WHAT)
        values = address.read_parameters(_PARAMETERS)
        return cls(
            url.with_user(None),
            Credentials(user or "", password or "") if user is not None or password is not None else None,
            ignored=tuple(ignored),
            **{_FIELDS[name]: value for name, value in values.items() if name in _FIELDS},
            require_signatures=_requires_signatures(without_secrets(text), values),
        )


def without_ignored(text: str) -> tuple[str, list[str]]:
    """The address without the parameters that mean nothing here, and the names of these."""
    base, _, query = text.partition("?")
    kept: list[str] = []
    ignored: dict[str, None] = {}
    for pair in query.split("&"):
        name = pair.partition("=")[0]
        if name in _MEANINGLESS:
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

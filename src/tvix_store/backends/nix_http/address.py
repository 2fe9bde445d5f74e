"""CacheAddress: the URL of an upstream cache, as Nix writes it, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from yarl import URL

from tvix_store.backends.nix_http.credentials import Credentials
from tvix_store.errors import InvalidError
from tvix_store.model.signature import PublicKey

_SCHEMES = ("http", "https", "nix+http", "nix+https")
_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""As Nix reads them."""
_KNOWN = (
    "trusted-public-keys",
    "require-signatures",
    "trusted",
    "priority",
    "narinfo-cache-negative-ttl",
    "store",
    "blob_service",
    "directory_service",
)
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
        shown, _, query = text.partition("?")
        shown = _without_credentials(shown)
        scheme, separator, rest = text.partition("?")[0].partition("://")
        if scheme not in _SCHEMES or not separator:
            raise InvalidError(f"not the address of a binary cache: {shown!r} (expected http://… or https://…)")
        if not text.isascii() or not text.isprintable() or " " in rest or "#" in rest:
            raise InvalidError(f"not the address of a binary cache: {shown!r} (write unusual characters as %XX)")
        try:
            url = URL(f"{scheme.removeprefix('nix+')}://{rest.rstrip('/')}/", encoded=True)
            user, password = url.user, url.password
            usable = bool(url.host and url.port)
        except ValueError as error:
            raise InvalidError(f"not the address of a binary cache: {shown!r} ({error})") from None
        if not usable:
            raise InvalidError(f"not the address of a binary cache: {shown!r} (a host is missing)")
        return cls(
            url.with_user(None),
            Credentials(user or "", password or "") if user is not None or password is not None else None,
            **_Parameters(shown, query).read(),
        )


def without_ignored(text: str) -> str:
    """The address without the parameters that mean nothing here."""
    base, _, query = text.partition("?")
    kept = [pair for pair in query.split("&") if pair.partition("=")[0] not in _MEANINGLESS]
    return f"{base}?{'&'.join(kept)}" if any(kept) else base


class _Parameters:
    def __init__(self, shown: str, query: str) -> None:
        self._shown = shown
        self._values: dict[str, str] = {}
        self._ignored: dict[str, None] = {}
        for pair in filter(None, query.split("&")):
            name, _, value = pair.partition("=")
            if name in _MEANINGLESS:
                self._ignored[name] = None
                continue
            if name not in _KNOWN:
                raise InvalidError(f"{shown}: unknown parameter {name!r} (known: {', '.join(_KNOWN)})")
            if name in self._values:
                raise InvalidError(f"{shown}: the parameter {name} stands there twice")
            self._values[name] = unquote(value)

    def read(self) -> dict[str, Any]:
        values = self._values
        names = {"store": "store_dir", "blob_service": "blob_service", "directory_service": "directory_service"}
        made: dict[str, Any] = {field: values[name] for name, field in names.items() if name in values}
        made["ignored"] = tuple(self._ignored)
        try:
            if "trusted-public-keys" in values:
                made["public_keys"] = tuple(map(PublicKey.parse, values["trusted-public-keys"].split()))
        except InvalidError as error:
            raise InvalidError(f"{self._shown}: trusted-public-keys: {error}") from None
        made |= self._trust()
        if "priority" in values:
            made["priority"] = self._one("priority", _number(values["priority"]))
        if "narinfo-cache-negative-ttl" in values:
            made["negative_ttl"] = self._one("narinfo-cache-negative-ttl", _number(values["narinfo-cache-negative-ttl"]))
        return made

    def _trust(self) -> dict[str, Any]:
        """Nix's `trusted` is the opposite of `require-signatures`."""
        said = {
            self._one(name, _SWITCH.get(self._values[name])) == required
            for name, required in (("require-signatures", True), ("trusted", False))
            if name in self._values
        }
        if len(said) > 1:
            raise InvalidError(f"{self._shown}: trusted and require-signatures say the opposite; leave one of them out")
        return {"require_signatures": said.pop()} if said else {}

    def _one(self, name: str, value: int | None) -> int:
        if value is None:
            raise InvalidError(f"{self._shown}: {self._values[name]!r} is not a value for {name}")
        return value


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _without_credentials(url: str) -> str:
    """`url` with its user and password left out, however broken it is."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"

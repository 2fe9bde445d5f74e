"""CacheAddress: the URL of an upstream cache, as Nix writes it, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from yarl import URL

from tvix_store.client_environment.credentials import Credentials
from tvix_store.model.address import Address, not_an_address
from tvix_store.model.cache_terms import CacheTerms, without_ignored

_SCHEMES = ("http", "https", "nix+http", "nix+https")
_WHAT = "a binary cache", "http://… or https://…"


@dataclass(frozen=True, slots=True)
class CacheAddress:
    """The place of an upstream cache, and the terms of its use.

    url: URL of the cache, without credentials and parameters. Its path ends with a slash.
    credentials: User and password of the URL, or None.
    blob_service, directory_service: Addresses of the stores to fill, or None.
    """

    url: URL
    credentials: Credentials | None = None
    terms: CacheTerms = field(default_factory=CacheTerms)
    blob_service: str | None = None
    directory_service: str | None = None

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
        terms, stores = CacheTerms.read(address, {"blob_service": str, "directory_service": str})
        return cls(
            url.with_user(None),
            Credentials(user or "", password or "") if user is not None or password is not None else None,
            replace(terms, ignored=tuple(ignored)),
            **stores,
        )

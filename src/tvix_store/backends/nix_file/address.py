"""DirectoryAddress, WritableAddress: the URL of a binary cache in a directory, to read and to write, as Nix has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tvix_store.model.address import Address, not_an_address
from tvix_store.model.cache_terms import CacheTerms, WriteTerms, without_ignored

_SCHEMES = ("file", "nix+file")
_WHAT = "a binary cache in a directory", "file:///path"


def is_directory(text: str) -> bool:
    """Whether this is the address of a binary cache in a directory, maybe a malformed one."""
    return text.partition(":")[0].lower() in _SCHEMES


@dataclass(frozen=True, slots=True)
class DirectoryAddress:
    """The directory of a cache that is read, and the terms of its use."""

    directory: Path
    terms: CacheTerms = field(default_factory=CacheTerms)

    @property
    def name(self) -> str:
        """The URL, for messages."""
        return shown(self.directory)

    @classmethod
    def parse(cls, text: str) -> DirectoryAddress:
        """Read `file:///path?name=value&…`, or the same with `nix+` before it.

        Raises:
            InvalidError: `text` is malformed, or has a parameter that is unknown, given twice, or has an impossible value.
        """
        kept, ignored = without_ignored(text)
        address = Address.parse_url(kept, *_WHAT)
        terms, _ = CacheTerms.read(address)
        return cls(_directory(address), replace(terms, ignored=tuple(ignored)))


@dataclass(frozen=True, slots=True)
class WritableAddress:
    """The directory of a cache that is written, and how."""

    directory: Path
    terms: WriteTerms = field(default_factory=WriteTerms)

    @classmethod
    def parse(cls, text: str) -> WritableAddress:
        """Read `file:///path`, with the parameters of `WriteTerms`.

        Raises:
            InvalidError: as `DirectoryAddress.parse`.
        """
        address = Address.parse_url(text, *_WHAT)
        return cls(_directory(address), WriteTerms.read(address))


def shown(directory: Path) -> str:
    """The URL of a cache, for messages."""
    return f"file://{directory}"


def _directory(address: Address) -> Path:
    if address.scheme not in _SCHEMES or address.host or not address.path.startswith("/") or "\0" in address.path:
        raise not_an_address(address.location, *_WHAT)
    return Path(address.path)

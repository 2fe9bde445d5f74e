"""DirectoryAddress, WritableAddress: the URL of a binary cache in a directory, to read and to write, as Nix has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tvix_store.errors import InvalidError
from tvix_store.model.address import Address, not_an_address
from tvix_store.model.cache_terms import MEANINGLESS, CacheTerms, without_ignored

_SCHEMES = ("file", "nix+file")
_WHAT = "a binary cache in a directory", "file:///path"
COMPRESSIONS = ("zstd", "none")
"""How NARs are written."""


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
    """The directory of a cache that is written.

    compression: One of COMPRESSIONS.
    secret_keys: The files of the keys that sign.
    ignored: Names of Nix's parameters in the URL that have no meaning here.
    """

    directory: Path
    compression: str = "zstd"
    secret_keys: tuple[Path, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> WritableAddress:
        """Read `file:///path?compression=none&secret-key=FILE`. Nix 2.34 takes several `secret-keys` too, with commas between.

        Raises:
            InvalidError: as `DirectoryAddress.parse`.
        """
        address = Address.parse_url(text, *_WHAT)
        directory = _directory(address)
        meaningless = MEANINGLESS - {"compression", "secret-key", "secret-keys"}
        values = address.read_parameters(
            {"compression": _compression, "secret-key": str, "secret-keys": str, **dict.fromkeys(sorted(meaningless), str)}
        )
        named = [values.get("secret-key", ""), *values.get("secret-keys", "").split(",")]
        return cls(
            directory,
            values.get("compression", "zstd"),
            tuple(dict.fromkeys(map(Path, filter(None, named)))),
            tuple(name for name in values if name in meaningless),
        )


def shown(directory: Path) -> str:
    """The URL of a cache, for messages."""
    return f"file://{directory}"


def _directory(address: Address) -> Path:
    if address.scheme not in _SCHEMES or address.host or not address.path.startswith("/") or "\0" in address.path:
        raise not_an_address(address.location, *_WHAT)
    return Path(address.path)


def _compression(text: str) -> str:
    if text not in COMPRESSIONS:
        raise InvalidError(f"NARs are written as {' or '.join(COMPRESSIONS)}, not as {text[:20]!r}")
    return text

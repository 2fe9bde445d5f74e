"""The types of a composition that are an address: a store in a directory, in memory, on a server, in a bucket, in a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import quote

from tvix_store.config.composition.node import Leaf
from tvix_store.config.composition.parameter import (
    ADDRESS,
    COUNT,
    NUMBER,
    OPTIONS,
    PATH,
    SIZE,
    SPAN,
    SWITCH,
    TEXT,
    choice,
    parameter,
)
from tvix_store.model.address import Address
from tvix_store.services.offer import Service

_SIZE_RULE = choice("documented", "snix")


@dataclass(frozen=True, slots=True)
class Memory(Leaf):
    """A store in memory. Tables of one name are one store; another name is another one.

    size: As the `near` of a cache: the most bytes that it keeps.
    """

    has_name: ClassVar[bool] = True
    size_rule: str | None = field(default=None, metadata=parameter(_SIZE_RULE))
    size: int | None = field(default=None, metadata=parameter(SIZE))

    def address(self) -> str:
        return _with_parameters("memory://", {"size_rule": self.size_rule})


@dataclass(frozen=True, slots=True)
class Local(Leaf):
    """A store in a directory. The values are those of `local:///path?…`."""

    path: str = field(metadata=parameter(PATH))
    chunk_average: int | None = field(default=None, metadata=parameter(SIZE))
    compression_level: int | None = field(default=None, metadata=parameter(NUMBER))
    pack_size: int | None = field(default=None, metadata=parameter(SIZE))
    size_rule: str | None = field(default=None, metadata=parameter(_SIZE_RULE))
    threads: int | None = field(default=None, metadata=parameter(NUMBER))
    read_only: bool = field(default=False, metadata=parameter(SWITCH))
    cache: str | None = field(default=None, metadata=parameter(TEXT))
    quota: int | None = field(default=None, metadata=parameter(SIZE))
    retention: str | None = field(default=None, metadata=parameter(SPAN))

    def address(self) -> str:
        from pathlib import Path

        given = {
            "chunk_average": self.chunk_average,
            "compression_level": self.compression_level,
            "pack_size": self.pack_size,
            "size_rule": self.size_rule,
            "threads": self.threads,
            "read-only": 1 if self.read_only else None,
            "cache": self.cache,
            "quota": self.quota,
            "retention": self.retention,
        }
        return _with_parameters(f"local://{quote(str(Path(self.path).absolute()))}", given)


@dataclass(frozen=True, slots=True)
class Grpc(Leaf):
    """A server: of ours, of tvix or of snix."""

    url: str = field(metadata=parameter(ADDRESS))

    def address(self) -> str:
        return self.url

    def faults(self) -> Iterator[tuple[str, str]]:
        address = Address.parse(self.url)
        family, plus, _ = address.scheme.partition("+")
        if not plus or family not in ("grpc", "connect"):
            from tvix_store.config.schemes import hint_of

            yield "url", hint_of(address) or "a server is grpc+http://host:port, grpc+https://… or grpc+unix:///path"


@dataclass(frozen=True, slots=True)
class ObjectStore(Leaf):
    """Object storage: `object_store_url` as snix has it, `file:///path`, `s3://bucket/prefix`, …

    The options are those of the client, as parameters of the address. `layout` and `avg_chunk_size` are of the content.
    """

    object_store_url: str = field(metadata=parameter(ADDRESS))
    object_store_options: tuple[tuple[str, str], ...] = field(default=(), metadata=parameter(OPTIONS, secret=True))
    avg_chunk_size: int | None = field(default=None, metadata=parameter(SIZE))
    layout: str | None = field(default=None, metadata=parameter(TEXT))

    def address(self) -> str:
        given = {"chunk_average": self.avg_chunk_size, "layout": self.layout, **dict(self.object_store_options)}
        return _with_parameters(f"objectstore+{self.object_store_url.removeprefix('objectstore+')}", given)


@dataclass(frozen=True, slots=True)
class PostgreSql(Leaf):
    """A database: directories and path infos. Blobs stand elsewhere."""

    services: ClassVar[frozenset[Service]] = frozenset(("directories", "path_infos"))
    url: str = field(metadata=parameter(ADDRESS))

    def address(self) -> str:
        return self.url

    def faults(self) -> Iterator[tuple[str, str]]:
        if not Address.parse(self.url).scheme.startswith("postgres"):
            yield "url", "a database is postgresql://user@host/database"


@dataclass(frozen=True, slots=True)
class Lru(Leaf):
    """The path infos that were used last, in memory."""

    services: ClassVar[frozenset[Service]] = frozenset(("path_infos",))
    has_name: ClassVar[bool] = True
    capacity: int = field(metadata=parameter(COUNT))

    def address(self) -> str:
        return f"lru://?capacity={self.capacity}"


def _with_parameters(location: str, given: Mapping[str, object]) -> str:
    pairs = [f"{name}={quote(str(value), safe='')}" for name, value in given.items() if value is not None]
    if not pairs:
        return location
    return f"{location}{'&' if '?' in location else '?'}{'&'.join(pairs)}"

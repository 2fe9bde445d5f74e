"""Store: one service of each kind, ready to use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.foreign_documents import ForeignDocuments
from tvix_store.services.frames import StoredFrames
from tvix_store.services.lone_files import LoneFiles
from tvix_store.services.nar import NarService
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.staging import Staging


@dataclass(frozen=True, slots=True)
class Stats:
    """How much a store holds. Bytes throughout.

    `logical_bytes` counts content as often as paths refer to it (the sum of NAR sizes), `unique_bytes` each distinct
    chunk once, `stored_bytes` the same as it is stored, compressed, and `disk_bytes` all that the store takes on disk.
    `chunked_blobs` are the blobs that were cut; the others are a chunk each.
    """

    path_infos: int
    directories: int
    chunked_blobs: int
    chunks: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    disk_bytes: int


class Statistics(Protocol):
    """An optional power of a backend: to count what it holds."""

    async def stats(self) -> Stats: ...


Check: TypeAlias = Callable[[], Awaitable[None]]
"""Raises UnavailableError while something cannot serve."""


class ServiceChecks(NamedTuple):
    """A check for each service."""

    blobs: Check
    directories: Check
    path_infos: Check


async def _nothing() -> None:
    return None


async def _always_the_same() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Store:
    """A blob, a directory, a path info and a NAR service, with what belongs to them.

    Optional powers of a backend are None where it has them not: `records`, `frames`, `lone_files`, `staging`,
    `assembling`, `statistics`. Of these, `lone_files`, `staging` and `assembling` write past the other services: who
    replaces a service removes them.

    links: a place for the links of NARs where there are no records; it may forget the oldest
    find_path: returns the store path of an output hash without fetching its content; None for a store that has no upstream
    foreign_documents: the documents of upstream caches; None for a store that has no upstream
    read_only: every put is refused
    check: raises UnavailableError while the store cannot serve
    service_checks: the same for each service, where services stand in several stores
    epoch: returns a number that changes whenever content turns out to be damaged or lost: what was found out before may be wrong
    sync: brings all acknowledged content to the disk itself, as a put of a path info does in one store. Where path infos stand
        elsewhere, it is called before they are put

    Use as `async with store:` or call `close` when done.
    """

    blobs: BlobService
    directories: DirectoryService
    path_infos: PathInfoService
    nar: NarService
    records: RecordService | None = None
    links: RecordService | None = None
    frames: StoredFrames | None = None
    lone_files: LoneFiles | None = None
    staging: Staging | None = None
    assembling: Assembling | None = None
    statistics: Statistics | None = None
    find_path: Callable[[bytes], Awaitable[StorePath | None]] | None = None
    foreign_documents: ForeignDocuments | None = None
    store_dir: str = STORE_DIR
    size_rule: SizeRule = SizeRule.DOCUMENTED
    read_only: bool = False
    check: Check = field(default=_nothing)
    service_checks: ServiceChecks | None = None
    epoch: Callable[[], Awaitable[int]] = field(default=_always_the_same)
    sync: Callable[[], Awaitable[None]] = field(default=_nothing)
    close: Callable[[], Awaitable[None]] = field(default=_nothing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

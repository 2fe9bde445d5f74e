"""Store: one service of each kind, ready to use."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from tvix_store.model.nodes import Node
from tvix_store.model.path_info import NarFacts
from tvix_store.model.wanted import wanted
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.foreign_documents import ForeignDocuments
from tvix_store.services.foreign_paths import ForeignPaths
from tvix_store.services.nar import NarService
from tvix_store.services.offer import Check, Offer
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService


class ServiceChecks(NamedTuple):
    """A check for each service."""

    blobs: Check
    directories: Check
    path_infos: Check


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Store(Offer):
    """An offer that lacks nothing: it has a blob, a directory, a path info and a NAR service.

    It may lack `records` and the powers in POWERS.

    links: a place for the links of NARs where there are no records; it may forget the oldest
    foreign_documents: the documents of upstream caches; None for a store that has no upstream
    foreign_paths: the paths of upstream caches, which `path_infos` fetches when it is asked for them; None without upstreams
    service_checks: a check for each service, where services stand in several stores

    Use as `async with store:` or call `close` when done.
    """

    blobs: BlobService
    directories: DirectoryService
    path_infos: PathInfoService
    nar: NarService
    links: RecordService | None = None
    foreign_documents: ForeignDocuments | None = None
    foreign_paths: ForeignPaths | None = None
    service_checks: ServiceChecks | None = None

    def begin_nar(self) -> int:
        """As `KnownNars.begin`."""
        return 0 if self.known_nars is None else self.known_nars.begin()

    async def remember_nar(self, node: Node, facts: NarFacts, since: int) -> None:
        """Spare `nar` the work, where it believes us: as `KnownNars.put`."""
        if self.known_nars is not None:
            await self.known_nars.put(node, facts, since)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


def wanted_store(store: object) -> None:
    """Check that an argument is a store.

    Raises:
        InvalidError: it is something else.
    """
    wanted(store, Store, "a store, as `async with open_store(…)` gives it")

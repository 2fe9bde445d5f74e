"""Offer: the services at an address, some or all of a store's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.arrivals import Arrivals
from tvix_store.services.assembling import Assembling
from tvix_store.services.blobs import BlobService
from tvix_store.services.collection import ContentCollection
from tvix_store.services.deltas import Deltas
from tvix_store.services.directories import DirectoryService
from tvix_store.services.frames import StoredFrames
from tvix_store.services.granular import Granular
from tvix_store.services.lone_files import LoneFiles
from tvix_store.services.many_path_infos import ManyPathInfos
from tvix_store.services.named_paths import NamedPaths
from tvix_store.services.nar import KnownNars, NarService
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService
from tvix_store.services.removal import Removal
from tvix_store.services.staging import Staging
from tvix_store.services.statistics import Statistics

Service: TypeAlias = Literal["blobs", "directories", "path_infos", "nar", "records"]
Power: TypeAlias = Literal[
    "frames",
    "lone_files",
    "staging",
    "assembling",
    "granular",
    "deltas",
    "many_path_infos",
    "named_paths",
    "arrivals",
    "removal",
    "collection",
    "statistics",
    "known_nars",
]
POWERS: Mapping[Power, frozenset[Service]] = {
    "frames": frozenset(("blobs",)),
    "lone_files": frozenset(("blobs",)),
    "staging": frozenset(("blobs", "directories", "nar", "records")),
    "assembling": frozenset(("blobs",)),
    "granular": frozenset(("blobs", "directories")),
    "deltas": frozenset(("blobs",)),
    "many_path_infos": frozenset(("path_infos",)),
    "named_paths": frozenset(("path_infos",)),
    "arrivals": frozenset(("path_infos",)),
    "removal": frozenset(("path_infos", "records")),
    "collection": frozenset(("blobs", "directories", "path_infos", "nar", "records")),
    "statistics": frozenset(("blobs", "directories", "path_infos")),
    "known_nars": frozenset(("nar",)),
}
"""The optional powers of a store, each with the services that it writes or reads past: it is bound to these."""
Check: TypeAlias = Callable[[], Awaitable[None]]
"""Raises UnavailableError while something cannot serve."""


async def nothing() -> None:
    """Do nothing."""


async def always_the_same() -> int:
    """The epoch of a store that loses nothing, or cannot tell."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Offer:
    """Services that belong together, with their powers. None stands for a service or power that the backend lacks.

    A power writes, or reads, past the services that it is bound to. So a service is replaced by `with_services` and never by
    `dataclasses.replace`.

    name: The address, for messages, without secrets.
    nar: Calculates NARs of the content of `blobs` and `directories`.
    known_nars: The facts from which `nar` answers. None where it trusts nobody.
    read_only: Whether every put is refused.
    takes_any_sizes: Whether directories are taken whose sizes are by another rule than `size_rule`.
    keeps_plans: Whether plans of NARs are worth keeping. A store that makes them quickly, but writes slowly, has no use for it.
    check: Raises UnavailableError while the services cannot serve.
    epoch: Returns a number that changes whenever content turns out to be damaged or lost. Earlier findings may then be wrong.
    sync: Brings all acknowledged content to the disk itself, as a put of a path info does in one store. Where path infos stand
        elsewhere, it is called before they are put
    keeping: A context in which content that is found to be there stays: until what needs it is put
    close: to be called when done
    """

    name: str = ""
    blobs: BlobService | None = None
    directories: DirectoryService | None = None
    path_infos: PathInfoService | None = None
    nar: NarService | None = None
    records: RecordService | None = None
    frames: StoredFrames | None = None
    lone_files: LoneFiles | None = None
    staging: Staging | None = None
    assembling: Assembling | None = None
    granular: Granular | None = None
    deltas: Deltas | None = None
    many_path_infos: ManyPathInfos | None = None
    named_paths: NamedPaths | None = None
    arrivals: Arrivals | None = None
    removal: Removal | None = None
    collection: ContentCollection | None = None
    statistics: Statistics | None = None
    known_nars: KnownNars | None = None
    read_only: bool = False
    takes_any_sizes: bool = True
    keeps_plans: bool = True
    store_dir: str = STORE_DIR
    size_rule: SizeRule = SizeRule.DOCUMENTED
    check: Check = nothing
    epoch: Callable[[], Awaitable[int]] = always_the_same
    sync: Callable[[], Awaitable[None]] = nothing
    keeping: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    close: Callable[[], Awaitable[None]] = nothing

    def with_services(
        self,
        *,
        blobs: BlobService | None = None,
        directories: DirectoryService | None = None,
        path_infos: PathInfoService | None = None,
        nar: NarService | None = None,
        records: RecordService | None = None,
        keep: Collection[Power] = (),
    ) -> Self:
        """The same with these services in place of its own, without the powers that are bound to a replaced service.

        `keep` names the powers that may stay: what they do past the new service, the new service would let them do.
        """
        services = {"blobs": blobs, "directories": directories, "path_infos": path_infos, "nar": nar, "records": records}
        replaced: dict[str, Any] = {name: service for name, service in services.items() if service is not None}
        dropped: dict[str, Any] = {name: None for name, bound in POWERS.items() if bound & replaced.keys() and name not in keep}
        return replace(self, **replaced, **dropped)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or 'without an address'}>"

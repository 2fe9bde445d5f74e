"""Store: a store that is open, as users of the library have it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tvix_store import services
from tvix_store.library.life import Life
from tvix_store.library.services import Blobs, Directories, Nars, PathInfos
from tvix_store.services.blobs import BlobService
from tvix_store.services.directories import DirectoryService
from tvix_store.services.nar import NarService
from tvix_store.services.offer import Power
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.records import RecordService

_FACTS = frozenset(
    ("name", "substituters", "elsewhere", "read_only", "takes_any_sizes", "store_dir", "size_rule", "service_checks", "links")
)
"""Fields that may be read when the store is closed."""
_OWN = frozenset(("blobs", "directories", "path_infos", "nar", "close", "life"))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Store(services.Store):
    """A store that is open, with the services `blobs`, `directories`, `path_infos` and `nar`.

    Use as `async with store:` or call `close` when done. Closing twice does nothing. Whatever is asked of a closed store raises
    ClosedError. A store that is thrown away open warns with ResourceWarning.
    """

    blobs: Blobs
    directories: Directories
    path_infos: PathInfos
    nar: Nars
    life: Life = field(compare=False)

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
        """As `services.Store.with_services`. It is open as long as this one."""
        return services.Store.with_services(
            self,
            blobs=None if blobs is None else Blobs(blobs, self.life),
            directories=None if directories is None else Directories(directories, self.life),
            path_infos=None if path_infos is None else PathInfos(path_infos, self.life, self.store_dir),
            nar=None if nar is None else Nars(nar, self.life),
            records=records,
            keep=keep,
        )

    def __repr__(self) -> str:
        return f"<Store {self.name or 'without an address'}{'' if self.life.is_open else ', closed'}>"


def opened(store: services.Store) -> Store:
    """The store for users. It closes `store`."""
    if isinstance(store, Store):
        return store
    life = Life(store.name or "without an address", store.close)
    values: dict[str, Any] = {each.name: getattr(store, each.name) for each in fields(store)}
    guarded = {name: life.guarded(value) for name, value in values.items() if value is not None and name not in _FACTS | _OWN}
    own = {
        "blobs": Blobs(store.blobs, life),
        "directories": Directories(store.directories, life),
        "path_infos": PathInfos(store.path_infos, life, store.store_dir),
        "nar": Nars(store.nar, life),
        "close": life.end,
        "life": life,
    }
    return Store(**(values | guarded | own))

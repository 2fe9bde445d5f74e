"""The backend `local:///path`: a store in one directory, used by many processes at once. See docs/design/local.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tvix_store.backends.local.durability import Durability
from tvix_store.model.directory import SizeRule

if TYPE_CHECKING:
    from tvix_store.services.store import Store

__all__ = ["open_store"]

_DAY = 24 * 3600


async def open_store(
    directory: Path,
    *,
    chunk_average: int | None = None,
    compression_level: int | None = None,
    pack_size: int | None = None,
    size_rule: SizeRule | None = None,
    store_dir: str | None = None,
    threads: int | None = None,
    read_only: bool = False,
    scrub_days: float = 0,
    durability: Callable[[Path], Durability] = Durability,
) -> Store:
    """Open the store in `directory`, or make one there.

    The settings are fixed when a store is made; None means as it is, or the default. `chunk_average` and `pack_size` are in bytes.
    A store of an earlier version does not know its `store_dir`. It takes the first one that is given. Without one, it takes the
    default with the next path info.
    `threads` is not one of them: so many threads read and check at a time, and with none the event loop's does. That is for a
    process that does one thing after the other: handing work to a thread and back takes 0.1 ms.
    A store that this process cannot write is only read, as one that is opened `read_only`: every put is refused. It is seen as it
    is now, and some seconds later what others add.
    With `scrub_days`, all content is read once in so many days, and what is damaged is forgotten. A store that is only read is not
    looked at in this way.
    `durability` makes what syncs the store. Who opens the store first in a process says so.

    Raises:
        NoStoreError: `directory` holds something else, or, `read_only`, no store.
        InvalidError: it is a file, or holds a store of an unknown format, or with other settings.
        CorruptError: its files are damaged.
        DeniedError, ExhaustedError, UnavailableError: the disk does not let us.
    """
    # Not at the top: other modules of this package are of use without all of these.
    from tvix_store.backends.local.assembling import LocalAssembling
    from tvix_store.backends.local.blobs import LocalBlobs
    from tvix_store.backends.local.collection.power import LocalCollection
    from tvix_store.backends.local.content_scrub import ContentScrub
    from tvix_store.backends.local.directories import LocalDirectories
    from tvix_store.backends.local.engine import READ_THREADS, Engine
    from tvix_store.backends.local.frames import LocalFrames
    from tvix_store.backends.local.granular import LocalGranular
    from tvix_store.backends.local.keyed_records import LocalRecords
    from tvix_store.backends.local.path_infos import LocalNarFacts, LocalPathInfos
    from tvix_store.backends.local.removal import LocalRemoval
    from tvix_store.backends.local.requests import Sync
    from tvix_store.backends.local.settings import Settings
    from tvix_store.backends.local.staging import LocalStaging
    from tvix_store.backends.local.statistics import LocalStatistics
    from tvix_store.errors import StoreError
    from tvix_store.layers.blob_deltas import BlobDeltas
    from tvix_store.layers.named_paths import ListedNames
    from tvix_store.layers.read_only import read_only as made_read_only
    from tvix_store.layers.remembering_nar import RememberingNarService
    from tvix_store.model.store_path import STORE_DIR
    from tvix_store.services.store import Store

    settings: dict[str, int | str | None] = {
        "chunk_average": chunk_average,
        "compression_level": compression_level,
        "pack_size": pack_size,
        "size_rule": size_rule.name.lower() if size_rule else None,
        "store_dir": store_dir,
    }
    wanted = {name: value for name, value in settings.items() if value is not None}
    Settings(**wanted)  # type: ignore[arg-type]  # checks them, before a directory is made for them
    engine = await asyncio.to_thread(
        Engine.acquire, directory, wanted, READ_THREADS if threads is None else threads, durability, read_only=read_only
    )
    its_store_dir = store_dir or engine.settings.store_dir or STORE_DIR
    path_infos = LocalPathInfos(engine, its_store_dir)
    blobs, directories, records = LocalBlobs(engine), LocalDirectories(engine), LocalRecords(engine)
    known_nars = LocalNarFacts(engine)
    frames, assembling = LocalFrames(engine, blobs), LocalAssembling(engine, blobs)

    async def check() -> None:
        engine.check()

    async def epoch() -> int:
        with suppress(StoreError):  # a store that can't be written can be read
            await engine.without_losses()
        return engine.index.generation()

    async def sync() -> None:
        await asyncio.wrap_future(engine.committer.submit(Sync()))

    scrub = ContentScrub(engine, scrub_days * _DAY) if scrub_days > 0 and engine.refusal is None else None

    async def close() -> None:
        if scrub is not None:
            await asyncio.to_thread(scrub.close)
        await asyncio.to_thread(engine.release)

    store = Store(
        blobs=blobs,
        directories=directories,
        path_infos=path_infos,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        records=records,
        frames=frames,
        assembling=assembling,
        granular=LocalGranular(engine, blobs, frames, assembling),
        deltas=BlobDeltas(blobs),
        named_paths=ListedNames(path_infos),
        arrivals=path_infos,
        removal=LocalRemoval(engine),
        collection=LocalCollection(engine),
        keeping=engine.roots_lock.shared,
        staging=LocalStaging(engine),
        statistics=LocalStatistics(engine, path_infos),
        store_dir=its_store_dir,
        size_rule=SizeRule[engine.settings.size_rule.upper()],
        check=check,
        epoch=epoch,
        sync=sync,
        close=close,
    )
    return store if engine.refusal is None else made_read_only(store, engine.refusal)

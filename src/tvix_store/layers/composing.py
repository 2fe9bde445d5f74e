"""A Store out of offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from tvix_store.errors import UnsupportedError
from tvix_store.layers.composed_statistics import ComposedStatistics
from tvix_store.layers.kept_path_infos import KeptPathInfos
from tvix_store.layers.memory_nars import MemoryNars
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.layers.staging_beside import StagingBeside
from tvix_store.layers.syncing import SyncingPathInfos
from tvix_store.services.offer import POWERS, Offer, Service
from tvix_store.services.staging import Staging
from tvix_store.services.statistics import Statistics
from tvix_store.services.store import ServiceChecks, Store

_WORDS = {"blobs": "blobs", "directories": "directories", "path_infos": "path infos"}


def composed(blobs: Offer, directories: Offer, path_infos: Offer) -> Store:
    """The store of these services, which closes all three. Records stand beside the path infos.

    The store has a power if one offer has it, and all services that the power is bound to come from that offer. Its statistics are
    put together if all offers have some. NARs are calculated here, and remembered while this process runs, unless one offer has all
    content and calculates them itself.

    Raises:
        UnsupportedError: an offer lacks the service that it was chosen for.
    """
    chosen: dict[str, Offer] = {"blobs": blobs, "directories": directories, "path_infos": path_infos}
    lacking = [(offer, service) for service, offer in chosen.items() if getattr(offer, service) is None]
    if blobs.blobs is None or directories.directories is None or path_infos.path_infos is None:
        raise UnsupportedError(_lacks(lacking))
    distinct = list({id(offer): offer for offer in chosen.values()}.values())
    others = [offer for offer in distinct if offer is not path_infos]
    service = path_infos.path_infos
    content = blobs if blobs is directories and blobs.nar is not None else None
    of: dict[Service, Offer | None] = {
        "blobs": blobs,
        "directories": directories,
        "path_infos": path_infos,
        "nar": content,
        "records": path_infos,
    }
    known_nars = MemoryNars()  # where nobody has calculated
    powers: dict[str, Any] = {"known_nars": known_nars} | _statistics(blobs, directories, path_infos) | _powers(of)
    if others:
        service = SyncingPathInfos(
            KeptPathInfos(service, powers["known_nars"], blobs.keeping), _each([each.sync for each in others])
        )
    return Store(
        name=path_infos.name,
        blobs=blobs.blobs,
        directories=directories.directories,
        path_infos=service,
        nar=(content and content.nar) or RememberingNarService(blobs.blobs, directories.directories, known_nars),
        records=path_infos.records,
        read_only=all(each.read_only for each in distinct),
        store_dir=path_infos.store_dir,
        size_rule=directories.size_rule,
        takes_any_sizes=directories.takes_any_sizes,
        keeps_plans=blobs.keeps_plans,
        check=_each([each.check for each in distinct]),
        service_checks=ServiceChecks(blobs.check, directories.check, path_infos.check),
        epoch=blobs.epoch,
        keeping=blobs.keeping,
        sync=_each([each.sync for each in distinct]),
        close=_each([each.close for each in distinct]),
        **(powers | _staging_beside(content, path_infos)),
    )


def _powers(of: Mapping[Service, Offer | None]) -> dict[str, Any]:
    """The powers whose services are all `of` one offer."""
    powers: dict[str, Any] = {}
    for name, services in POWERS.items():
        owner, *others = (of[service] for service in services)
        if owner is not None and all(other is owner for other in others):
            powers[name] = getattr(owner, name)
    return powers


def _statistics(blobs: Offer, directories: Offer, path_infos: Offer) -> dict[str, Statistics]:
    """The statistics of the three offers, put together; nothing where one of them has none."""
    if blobs.statistics is None or directories.statistics is None or path_infos.statistics is None:
        return {}
    return {"statistics": ComposedStatistics(blobs.statistics, directories.statistics, path_infos.statistics)}


def _staging_beside(content: Offer | None, path_infos: Offer) -> dict[str, Staging]:
    """The staging of an offer that has all content, whose records stand elsewhere or nowhere; nothing where that is not so."""
    if content is None or content.staging is None or content is path_infos:
        return {}
    staging = content.staging
    return {"staging": staging if path_infos.records is None else StagingBeside(staging, path_infos.records)}


def _lacks(lacking: list[tuple[Offer, str]]) -> str:
    """What is missing, in one line."""
    names = dict.fromkeys(offer.name for offer, _ in lacking)
    parts = [f"{name} has no {' and no '.join(_WORDS[what] for offer, what in lacking if offer.name == name)}" for name in names]
    return f"{'; '.join(parts)}: give the address of a store that has them"


def _each(calls: list[Callable[[], Awaitable[None]]]) -> Callable[[], Awaitable[None]]:
    if len(calls) == 1:
        return calls[0]

    async def call_each() -> None:
        async with AsyncExitStack() as stack:  # every one is called, even where one raises
            for call in calls:
                stack.push_async_callback(call)

    return call_each

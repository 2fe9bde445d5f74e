"""The offer of a path in a binary cache: the place of its NAR, the compression, and the facts of that file.

A client remembers an offer for a month. So nothing is offered that could not be served now, and every offer says the hash and size
of its file: `nix store sign` of Nix 2.8 ends in an assertion without.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError, StoreError, UnavailableError
from tvix_store.model import nixbase32
from tvix_store.model.path_info import PathInfo
from tvix_store.operations.nars.check import check_nar
from tvix_store.operations.nars.links import FileFacts, NarLink, NarLinks
from tvix_store.operations.nars.node_urls import node_url
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.planner import can_be_planned
from tvix_store.services.store import Store

_HASHED_AT_ONCE = 64 << 20
"""Bytes of a NAR whose zstd file is hashed before its first offer, which takes a quarter of a second then."""
_PATIENCE = 5.0
"""Seconds for which the first offer of a larger NAR waits for that. Then the NAR is offered uncompressed."""
_MOST_HASHING = 1000
"""Larger NARs that wait to be hashed."""
_log = logging.getLogger(__name__)


class NarOffer(NamedTuple):
    """The URL of a NAR relative to the cache, its compression, and what is true of the file."""

    url: str
    compression: str
    file: FileFacts


class NarOffers:
    """Offers the NARs of a store."""

    def __init__(self, store: Store, planned: PlannedNars | None) -> None:
        self._store = store
        self._planned = planned
        # Facts of files are kept with the store itself, or not at all. Elsewhere they would outlive a store that is made anew.
        self._files = NarLinks(store.records) if store.records is not None else None
        self._hashing: dict[bytes, asyncio.Task[None]] = {}
        self._one_hashing = asyncio.Semaphore(1)

    async def offer(self, path_info: PathInfo, compression: str) -> NarOffer:
        """The NAR of a path: as `compression`, `zstd` or `none`, or uncompressed where that cannot be had now.

        Raises:
            NotFoundError: its content is not all there.
        """
        node, nar = path_info.node, path_info.nar
        await check_nar(self._store.nar, node, nar, path_info.store_path)
        if compression == "zstd" and self._planned and self._files and can_be_planned(node, nar.size):
            try:
                file = await self._zstd_file(self._planned, self._files, path_info)
                if file is not None:
                    return NarOffer(f"nar/{nixbase32.encode(nar.sha256)}.nar.zst", "zstd", file)
            except (CorruptError, InvalidError) as error:
                _log.error("%s is not served: %s", path_info.store_path, error)
                raise NotFoundError("the content of", path_info.store_path) from error
            except (ExhaustedError, UnavailableError) as error:
                # The disk is full, for example. What follows needs nothing to be written.
                _log.warning("%s is not offered as zstd: %s", path_info.store_path, error)
        return NarOffer(node_url(node, nar.size), "none", FileFacts(nar.size, nar.sha256))

    def prepare(self, path_info: PathInfo) -> None:
        """Begin to hash the zstd file of a large NAR, so that its first offer waits less."""
        if self._planned and self._files and path_info.nar.size > _HASHED_AT_ONCE:
            self._hash_beside(self._planned, self._files, path_info)

    async def _zstd_file(self, planned: PlannedNars, links: NarLinks, path_info: PathInfo) -> FileFacts | None:
        """What is true of the zstd file, to which the NAR is linked then; None where that takes longer than anybody should wait."""
        nar, seal = path_info.nar, await planned.seal()
        file = await links.zstd_file(nar.sha256, seal)
        if file is None and nar.size <= _HASHED_AT_ONCE:
            file = await planned.file_facts(path_info.node)
            await links.put_zstd_file(NarLink(nar, path_info.node), file, seal)
        elif file is None:
            hashing = self._hash_beside(planned, links, path_info)
            if hashing is not None:
                await asyncio.wait((hashing,), timeout=_PATIENCE)
                file = await links.zstd_file(nar.sha256, seal)
        elif await links.get(nar.sha256) is None:
            await links.put(NarLink(nar, path_info.node))
        return file

    def _hash_beside(self, planned: PlannedNars, links: NarLinks, path_info: PathInfo) -> asyncio.Task[None] | None:
        """Make the file of a large NAR to hash it, one after the other, unless it is known; None where too many wait for that."""
        nar, node = path_info.nar, path_info.node

        async def hash_file() -> None:
            try:
                async with self._one_hashing:
                    seal = await planned.seal()
                    if await links.zstd_file(nar.sha256, seal) is None:
                        await links.put_zstd_file(NarLink(nar, node), await planned.file_facts(node), seal)
            except StoreError as error:
                _log.warning("the zstd file of %s was not hashed: %s", path_info.store_path, error)
            finally:
                del self._hashing[nar.sha256]

        if nar.sha256 not in self._hashing and len(self._hashing) < _MOST_HASHING and can_be_planned(node, nar.size):
            self._hashing[nar.sha256] = asyncio.create_task(hash_file())
        return self._hashing.get(nar.sha256)

"""named_cache: a store of its own over the content of another one."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.errors import UnsupportedError
from tvix_store.layers.blob_deltas import BlobDeltas
from tvix_store.layers.composing import composed
from tvix_store.layers.holding.blobs import HeldBlobs, hold_blobs
from tvix_store.layers.holding.directories import HeldDirectories
from tvix_store.layers.holding.granular import HeldAssembling, HeldGranular
from tvix_store.layers.holding.held import Held, Kind
from tvix_store.layers.holding.nars import HeldNars
from tvix_store.layers.holding.staging import HeldStaging
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.digest import Digest
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store


def named_cache(content: Store, own: Store) -> Store:
    """The cache whose path infos and records are `own`, and whose content stands in `content`. Closing it closes both.

    The cache knows of the content only what was sent to it. `frames` pass: they are asked for content of known roots alone.

    Raises:
        UnsupportedError: `own` keeps no records, or `content` knows no NARs.
    """
    if own.records is None or content.known_nars is None:
        who = own.name or content.name
        raise UnsupportedError(f"{who} cannot have named caches: they need records, and NARs that are calculated here")
    held = Held(own.records)

    async def hold_sent_blobs(digests: Sequence[Digest]) -> None:
        await hold_blobs(content.blobs, held, digests)

    async def hold_sent_directories(digests: Sequence[Digest]) -> None:
        await held.add(Kind.DIRECTORY, digests)

    blobs = HeldBlobs(content.blobs, held, hold_sent_blobs)
    directories = HeldDirectories(content.directories, held, hold_sent_directories)
    known_nars = HeldNars(content.known_nars, held)
    part = Offer(
        name=content.name,
        blobs=blobs,
        directories=directories,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        frames=content.frames,
        staging=content.staging and HeldStaging(content.staging, held, content.blobs, known_nars),
        assembling=content.assembling and HeldAssembling(content.assembling, held, content.blobs),
        granular=content.granular and HeldGranular(content.granular, held, content.blobs),
        deltas=BlobDeltas(blobs),
        read_only=content.read_only,
        takes_any_sizes=content.takes_any_sizes,
        store_dir=content.store_dir,
        size_rule=content.size_rule,
        check=content.check,
        epoch=content.epoch,
        sync=content.sync,
        close=content.close,
    )
    return composed(part, part, own)

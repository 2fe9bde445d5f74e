"""named_cache: a store of its own over the content of another one."""

from __future__ import annotations

from tvix_store.errors import UnsupportedError
from tvix_store.layers.blob_deltas import BlobDeltas
from tvix_store.layers.composing import composed
from tvix_store.layers.holding.blobs import HeldBlobs
from tvix_store.layers.holding.content import HeldContent
from tvix_store.layers.holding.directories import HeldDirectories
from tvix_store.layers.holding.granular import HeldAssembling, HeldGranular
from tvix_store.layers.holding.held import Held
from tvix_store.layers.holding.nars import HeldNars
from tvix_store.layers.holding.quota import Quota, Room
from tvix_store.layers.holding.retention import Retention, RetentionTerms
from tvix_store.layers.holding.staging import HeldStaging
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store


def named_cache(content: Store, own: Store, quota: int | None = None, terms: RetentionTerms | None = None) -> Store:
    """The cache whose path infos and records are `own`, and whose content stands in `content`. Closing it closes both.

    `quota` bounds the bytes of the files that it holds. By the `terms` it lets go of paths that nobody uses; None: of none.
    With it, the caller is in an event loop, where the cache looks through its paths once a day.

    The cache knows of the content only what was sent to it. `frames` pass: they are asked for content of known roots alone.

    Raises:
        UnsupportedError: `own` keeps no records, or `content` knows no NARs.
    """
    if own.records is None or content.known_nars is None:
        who = own.name or content.name
        raise UnsupportedError(f"{who} cannot have named caches: they need records, and NARs that are calculated here")
    held = Held(own.records)
    bound = Quota(own.records, quota)
    taken = HeldContent(content.blobs, held, bound)

    def room() -> Room:
        return Room(bound)

    retention = None if terms is None else Retention(content, own, held, bound, terms)
    blobs = HeldBlobs(content.blobs, held, room, taken.take_blobs, content.staging)
    directories = HeldDirectories(content.directories, held, room, taken.take_directories)
    known_nars = HeldNars(content.known_nars, held)
    part = Offer(
        name=content.name,
        blobs=blobs,
        directories=directories,
        nar=RememberingNarService(blobs, directories, known_nars),
        known_nars=known_nars,
        frames=content.frames,
        staging=content.staging and HeldStaging(content.staging, taken, known_nars),
        assembling=content.assembling and HeldAssembling(content.assembling, taken),
        granular=content.granular and HeldGranular(content.granular, taken),
        deltas=BlobDeltas(blobs),
        read_only=content.read_only,
        takes_any_sizes=content.takes_any_sizes,
        store_dir=content.store_dir,
        size_rule=content.size_rule,
        check=content.check,
        epoch=content.epoch,
        keeping=content.keeping,
        sync=content.sync,
        close=content.close,
    )
    return composed(part, part, own if retention is None else retention.begun())

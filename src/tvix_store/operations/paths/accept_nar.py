"""accept_nar: the one way of a NAR into a store, whoever sends it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence

from tvix_store.model.path_info import NarFacts
from tvix_store.operations.ingest.import_nar import MAX_ENTRIES, NarImport
from tvix_store.operations.nars.links import NarLink, NarLinks, link_records
from tvix_store.services.store import Store


async def accept_nar(
    store: Store,
    nar: AsyncIterable[bytes],
    sha256: bytes,
    check: Callable[[NarFacts], Sequence[bytes]],
    *,
    max_size: int | None = None,
    max_entries: int = MAX_ENTRIES,
) -> NarLink:
    """Store what a NAR holds, with what is true of it, and its link. In a store with stages, all of that becomes visible together.

    `sha256` names the NAR, or the file that it came in. Where that is linked already, the NAR is sent again because something of it
    is missing or damaged: then all that the store has of it is read and checked, and stored anew where it is damaged.
    `check` is called when all has come. It raises where this is not the NAR that it should be, and returns the SHA-256 of files
    that the NAR is to be linked by as well.

    Raises:
        InvalidError, ExhaustedError: as `import_nar`.
        StoreError: what `nar`, `check`, or the store raises.
    """
    links = NarLinks.of(store)
    is_again = links is not None and await links.get(sha256) is not None
    async with NarImport(store, rechecks=is_again) as importing:
        node, facts = await importing.read(nar, max_size, max_entries)
        link = NarLink(facts, node)
        await importing.store(link_records(link, *check(facts)))
        return link

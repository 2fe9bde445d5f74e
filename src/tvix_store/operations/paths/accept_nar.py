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
    """Store the content of a NAR, its facts, and its link. In a store with stages, all of these become visible together.

    `sha256` names the NAR, or the file that it came in. A NAR that is linked already is sent again because a part is missing or
    damaged. Then all stored content of the NAR is read and checked, and stored anew where it is damaged. `check` is called when the
    whole NAR has come. It raises if this is another NAR than was announced. It returns the SHA-256 of the files by which the NAR is
    linked as well.

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

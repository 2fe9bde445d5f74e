"""A store that takes what is true, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from tvix_store.model.signature import PublicKey
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.store import Store, wanted_store

S = TypeVar("S", bound=Store)


def verified(
    store: S,
    keys: Sequence[PublicKey] = (),
    *,
    require_signatures: bool = False,
    require_references: bool = False,
    trust_nar: bool = True,
) -> S:
    """The store, taking only path infos that are true of its content, and whose content addresses and signatures by `keys` hold.

    With `require_signatures`, a path that does not follow from its content needs one of these signatures. With
    `require_references`, the paths that it refers to must be in the store. Without `trust_nar`, the size and hash of a NAR are not
    taken from a server's word: they are computed here, from content that is checked against its digests.
    """
    wanted_store(store)
    from tvix_store.layers.closed import ClosedPathInfos
    from tvix_store.layers.signature_policy import SignaturePolicy
    from tvix_store.layers.verifying import VerifyingPathInfos

    if not trust_nar:
        store = calculating_here(store)
    path_infos: PathInfoService = SignaturePolicy(store, keys, required=require_signatures)
    path_infos = VerifyingPathInfos(path_infos, store.nar)
    if require_references:
        # References first: to look them up costs little, to calculate a NAR much.
        path_infos = ClosedPathInfos(store, path_infos)
    # They check puts, and change no stored content.
    return store.with_services(path_infos=path_infos, keep=["statistics", "named_paths", "arrivals", "removal", "collection"])


def calculating_here(store: S) -> S:
    """The store, computing sizes and hashes of NARs itself where a server would tell them."""
    if store.known_nars is not None:
        return store
    from tvix_store.layers.memory_nars import MemoryNars
    from tvix_store.layers.remembering_nar import RememberingNarService

    known_nars = MemoryNars()
    store = store.with_services(nar=RememberingNarService(store.blobs, store.directories, known_nars))
    return replace(store, known_nars=known_nars)

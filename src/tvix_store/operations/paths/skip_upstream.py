"""upstream_paths: which of many paths need not be pushed, since clients get them from a cache elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.model.store_path import StorePath
from tvix_store.operations.paths.nix_json import StatedPath
from tvix_store.services.path_infos import PathInfoService
from tvix_store.services.upstream import Upstream, UpstreamLiesError

_AT_ONCE = 32
"""Narinfos that are asked for at a time."""


async def upstream_paths(
    paths: Sequence[StatedPath],
    key_names: Collection[str],
    target: PathInfoService | None,
    upstreams: Sequence[Upstream],
) -> dict[StorePath, str]:
    """The paths that an upstream has, each with the reason to think so.

    A path is one of these if a key of `key_names` has signed it, if the daemon of `target` gets it from its own upstreams, or if
    one of `upstreams` has its narinfo. What a narinfo says is not looked at: the path is not taken from there.

    Raises:
        UnavailableError: a target or an upstream does not answer.
    """
    reasons: dict[StorePath, str] = {}
    for path in paths:
        signed_by = next((each.name for each in path.signatures if each.name in key_names), None)
        if signed_by is not None:
            reasons[path.store_path] = f"signed by {signed_by}"
    left = [path.store_path for path in paths if path.store_path not in reasons]
    if target is not None and left:
        there = await target.existing([path.output_hash for path in left])
        own = await target.get_many(list(there))
        reasons |= {
            path: "an upstream of the cache has it" for path in left if path.output_hash in there and path.output_hash not in own
        }
        left = [path for path in left if path.output_hash not in there]
    for upstream in upstreams:
        found = await each_at_once(partial(_has, upstream), left, _AT_ONCE)
        reasons |= {path: f"{upstream.name} has it" for path, has in zip(left, found, strict=True) if has}
        left = [path for path, has in zip(left, found, strict=True) if not has]
    return reasons


async def _has(upstream: Upstream, path: StorePath) -> bool:
    try:
        narinfo = await upstream.narinfo(path.output_hash)
    except UpstreamLiesError:
        return False
    return narinfo is not None and narinfo.store_path == path

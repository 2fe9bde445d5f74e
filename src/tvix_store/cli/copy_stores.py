"""`tvix-store copy --from ADDRESS --to ADDRESS`."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from tvix_store.cli.copy_outcomes import Outcomes, to_json
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.output import print_json
from tvix_store.cli.progress import Bar, behind_bar
from tvix_store.cli.sizes import human
from tvix_store.config import verified
from tvix_store.errors import InvalidError
from tvix_store.model.address import Address
from tvix_store.model.signature import PublicKey
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.copy import JOBS, copy_paths, named_path_infos
from tvix_store.operations.paths.path_copies import Copied
from tvix_store.services.store import Store

_CACHES = ("nix+http", "nix+https")
"""The schemes of binary caches. A store may lie behind every other one."""


async def copy_stores(
    invocation: Invocation,
    outcomes: Outcomes,
    source: str | None,
    target: str | None,
    paths: Sequence[str] | None,
    jobs: int | None,
    keys: Sequence[PublicKey],
    delta: bool | None,
    *,
    closure: bool,
    require_signatures: bool,
    as_json: bool,
) -> None:
    """Copy `paths`, or all (None), from the store at `source` to that at `target`; None stands for the store of the invocation."""
    account = Account()
    began = time.monotonic()
    async with await _at(invocation, target) as opened:
        to = verified(opened, keys, require_signatures=require_signatures)
        if source is not None and Address.parse(source).scheme in _CACHES:
            if paths is None:
                raise InvalidError(f"a binary cache does not tell what it has: name the paths to copy from {source}")
            copying = _from_cache(invocation, source, to, paths, jobs, keys, delta, account, closure=closure)
        else:
            copying = _from_store(invocation, source, to, paths, jobs, delta, account, closure=closure)
        async with aclosing(copying) as copies:
            if as_json:
                listed = [to_json(each, to.store_dir) async for each in outcomes.noted(copies)]
                print_json({"paths": listed, "account": _account_to_json(account, time.monotonic() - began)})
            else:
                await outcomes.printed(copies, to.store_dir)
    if not invocation.quiet and not as_json:
        print(_summary(outcomes, account, time.monotonic() - began), file=sys.stderr)
    outcomes.end()


async def _at(invocation: Invocation, address: str | None) -> Store:
    """The store at `address`, or that of the invocation."""
    if address is None:
        return await invocation.open_store()
    given = {name: value for name, value in invocation.given.items() if name == "store_dir"}
    return await replace(invocation, given=given | {"store": address}).open_store()


async def _from_store(
    invocation: Invocation,
    source: str | None,
    to: Store,
    paths: Sequence[str] | None,
    jobs: int | None,
    delta: bool | None,
    account: Account,
    *,
    closure: bool,
) -> AsyncGenerator[Copied, None]:
    async with await _at(invocation, source) as store:
        if paths is None:
            found = [each async for each in store.path_infos.list()]
        else:
            found = await named_path_infos(store, paths, closure=closure)

        def copying(bar: Bar) -> AsyncGenerator[Copied, None]:
            account.moved = lambda size: bar.add(0, size)
            return copy_paths(store, to, found, jobs=jobs or JOBS, deltas=delta, account=account)

        size = sum(each.nar.size for each in found)
        async with aclosing(behind_bar(invocation, "copy", copying, size, counted=f"of {len(found)} paths")) as copies:
            async for each in copies:
                yield each


async def _from_cache(
    invocation: Invocation,
    source: str,
    to: Store,
    paths: Sequence[str],
    jobs: int | None,
    keys: Sequence[PublicKey],
    delta: bool | None,
    account: Account,
    *,
    closure: bool,
) -> AsyncGenerator[Copied, None]:
    # These take long to import, since they speak HTTP.
    from tvix_store.config.caches import open_cache
    from tvix_store.operations.paths.copy_from_cache import copy_from_cache, named_narinfos

    cache = await open_cache(source, keys, store_dir=to.store_dir)
    try:
        found = await named_narinfos(cache, paths, store_dir=to.store_dir, closure=closure)

        def copying(bar: Bar) -> AsyncGenerator[Copied, None]:
            account.moved = lambda size: bar.add(0, size)
            return copy_from_cache(cache, to, found, jobs=jobs, deltas=delta, account=account)

        size = sum(each.nar.size for each in found)
        async with aclosing(behind_bar(invocation, "copy", copying, size, counted=f"of {len(found)} paths")) as copies:
            async for each in copies:
                yield each
    finally:
        await cache.upstream.close()


def _summary(outcomes: Outcomes, account: Account, seconds: float) -> str:
    parts = [
        f"{outcomes.copied} paths copied, {outcomes.known} were there",
        f"{human(account.logical)} in NARs",
        f"{human(account.sent)} sent ({account.chunks} chunks, {account.deltas} deltas)",
        f"{human(account.there)} of files were there",
        f"{seconds:.1f} s",
    ]
    return "; ".join(parts)


def _account_to_json(account: Account, seconds: float) -> dict[str, object]:
    return {
        "logical": account.logical,
        "sent": account.sent,
        "there": account.there,
        "chunks": account.chunks,
        "deltas": account.deltas,
        "seconds": round(seconds, 3),
    }

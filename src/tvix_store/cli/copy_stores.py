"""`tvix-store copy --from ADDRESS --to ADDRESS`."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing

from tvix_store.cli.cache_addresses import is_cache
from tvix_store.cli.copy_outcomes import Outcomes, to_json
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.output import print_json, warn
from tvix_store.cli.progress import Bar, behind_bar
from tvix_store.cli.sizes import counted, human
from tvix_store.config import verified
from tvix_store.errors import InvalidError
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.copy import JOBS, copy_paths, named_path_infos
from tvix_store.operations.paths.path_copies import Copied, Stated
from tvix_store.services.store import Store


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
    async with AsyncExitStack() as opened:
        if is_cache(target):
            if is_cache(source):
                raise InvalidError("nothing is copied from one binary cache to another: copy to a store, and from there")
            store = await opened.enter_async_context(await _at(invocation, source).open_store())
            copying = _to_cache(
                invocation, store, target, paths, jobs, keys, account, closure=closure, require_signatures=require_signatures
            )
            store_dir = store.store_dir
        else:
            # The source first: no target is made for a store, or a path, that is not there.
            of, found = None, []
            if not is_cache(source):
                of = await opened.enter_async_context(await _at(invocation, source).open_store())
                found = await _named(of, paths, closure=closure)
            made = await opened.enter_async_context(await _at(invocation, target).open_or_make_store())
            to = verified(made, keys, require_signatures=require_signatures)
            store_dir = to.store_dir
            if of is not None:
                copying = _from_store(_at(invocation, source), of, to, found, jobs, delta, account)
            else:
                copying = copying_into(
                    invocation, outcomes, source, to, paths, keys, account, jobs=jobs, delta=delta, closure=closure
                )
        await _tell(invocation, outcomes, copying, store_dir, account, began, as_json=as_json)


def copying_into(
    invocation: Invocation,
    outcomes: Outcomes,
    source: str | None,
    to: Store,
    paths: Sequence[str] | None,
    keys: Sequence[PublicKey],
    account: Account,
    *,
    jobs: int | None = None,
    delta: bool | None = None,
    closure: bool = False,
) -> AsyncGenerator[Copied, None]:
    """The copies of `paths`, or of all (None), from the store or binary cache at `source` into the store `to`."""
    if is_cache(source):
        return _from_cache(invocation, outcomes, source, to, paths, jobs, keys, delta, account, closure=closure)
    return _from_address(invocation, source, to, paths, jobs, delta, account, closure=closure)


async def _tell(
    invocation: Invocation,
    outcomes: Outcomes,
    copying: AsyncGenerator[Copied, None],
    store_dir: str,
    account: Account,
    began: float,
    *,
    as_json: bool,
) -> None:
    """Print the outcomes, and at the end the account since `began`, a time of the monotonic clock."""
    async with aclosing(copying) as copies:
        if as_json:
            listed = [to_json(each, store_dir) async for each in outcomes.noted(copies)]
            print_json({"paths": listed, "account": _account_to_json(account, time.monotonic() - began)})
        else:
            await outcomes.printed(copies, store_dir)
    if not invocation.quiet and not as_json:
        print(_summary(outcomes, account, time.monotonic() - began), file=sys.stderr)
    outcomes.end()


def _at(invocation: Invocation, address: str | None) -> Invocation:
    """The settings for the store at `address`, or for that of the invocation."""
    return invocation if address is None else invocation.at(address)


async def _from_address(
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
    async with await _at(invocation, source).open_store() as store:
        found = await _named(store, paths, closure=closure)
        async with aclosing(_from_store(_at(invocation, source), store, to, found, jobs, delta, account)) as copies:
            async for each in copies:
                yield each


async def _from_store(
    invocation: Invocation,
    store: Store,
    to: Store,
    found: Sequence[PathInfo],
    jobs: int | None,
    delta: bool | None,
    account: Account,
) -> AsyncGenerator[Copied, None]:
    """The copies of `found` from the `store` of the invocation."""
    if not found:
        invocation.note_no_paths(store)

    def copying() -> AsyncGenerator[Copied, None]:
        return copy_paths(store, to, found, jobs=jobs or JOBS, deltas=delta, account=account)

    async with aclosing(_shown(invocation, found, copying, account)) as copies:
        async for each in copies:
            yield each


async def _to_cache(
    invocation: Invocation,
    store: Store,
    address: str,
    paths: Sequence[str] | None,
    jobs: int | None,
    keys: Sequence[PublicKey],
    account: Account,
    *,
    closure: bool,
    require_signatures: bool,
) -> AsyncGenerator[Copied, None]:
    from tvix_store.cli.key_files import read_signing_keys
    from tvix_store.config.caches import open_target
    from tvix_store.operations.paths.copy_to_cache import Form, copy_to_cache

    target = await open_target(address, store_dir=store.store_dir)
    form = Form(target.terms.compression, read_signing_keys(target.terms.secret_keys), tuple(keys), require_signatures)
    if target.terms.ignored:
        warn(f"{target.cache.name}: ignored, since it means nothing here: {', '.join(target.terms.ignored)}")
    found = await _named(store, paths, closure=closure)

    def copying() -> AsyncGenerator[Copied, None]:
        return copy_to_cache(store, target.cache, found, form, jobs=jobs, account=account)

    async with aclosing(_shown(invocation, found, copying, account)) as copies:
        async for each in copies:
            yield each


async def _from_cache(
    invocation: Invocation,
    outcomes: Outcomes,
    source: str,
    to: Store,
    paths: Sequence[str] | None,
    jobs: int | None,
    keys: Sequence[PublicKey],
    delta: bool | None,
    account: Account,
    *,
    closure: bool,
) -> AsyncGenerator[Copied, None]:
    from tvix_store.config.caches import open_cache
    from tvix_store.operations.paths.copy_from_cache import all_narinfos, copy_from_cache, named_narinfos

    cache = await open_cache(source, keys, store_dir=to.store_dir)
    try:
        if paths is None:
            found = await all_narinfos(cache, outcomes.add, store_dir=to.store_dir)
        else:
            found = await named_narinfos(cache, paths, store_dir=to.store_dir, closure=closure)

        def copying() -> AsyncGenerator[Copied, None]:
            return copy_from_cache(cache, to, found, jobs=jobs, deltas=delta, account=account)

        async with aclosing(_shown(invocation, found, copying, account)) as copies:
            async for each in copies:
                yield each
    finally:
        await cache.upstream.close()


async def _named(store: Store, paths: Sequence[str] | None, *, closure: bool) -> list[PathInfo]:
    """The path infos of `paths`, or of all (None)."""
    if paths is None:
        return [each async for each in store.path_infos.list()]
    return await named_path_infos(store, paths, closure=closure)


async def _shown(
    invocation: Invocation, found: Sequence[Stated], copies: Callable[[], AsyncGenerator[Copied, None]], account: Account
) -> AsyncGenerator[Copied, None]:
    """The copies of the `found` paths, behind a progress bar."""

    def copying(bar: Bar) -> AsyncGenerator[Copied, None]:
        account.moved = lambda size: bar.add(0, size)
        return copies()

    size = sum(each.nar.size for each in found)
    async with aclosing(behind_bar(invocation, "copy", copying, size, counted="path", things=len(found))) as outcomes:
        async for each in outcomes:
            yield each


def _summary(outcomes: Outcomes, account: Account, seconds: float) -> str:
    parts = [
        f"{counted(outcomes.copied, 'path')} copied, {outcomes.known} were there",
        f"{human(account.logical)} in NARs",
        f"{human(account.sent)} sent ({counted(account.chunks, 'chunk')}, {counted(account.deltas, 'delta')})",
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

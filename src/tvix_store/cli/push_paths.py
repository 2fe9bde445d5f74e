"""push_paths: bring store paths of Nix, with all they refer to, into a cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvix_store.errors import InvalidError
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.model.well_known_caches import KEY_NAMES
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.nix_json import Json, StatedPath, stated_path
from tvix_store.operations.paths.nix_store import NixStore, named_path
from tvix_store.operations.paths.pushed import Pushed, PushStatus

# Nix is asked first. What is imported later takes as long as its answer.
if TYPE_CHECKING:
    from tvix_store.config.caches import Target
    from tvix_store.operations.paths.path_copies import Copied
    from tvix_store.services.store import Store


@dataclass(frozen=True, slots=True)
class Skip:
    """Which paths are left out, since clients get them elsewhere.

    key_names: A path that one of these keys has signed is left out.
    upstreams: URLs of caches. A path that one of them has is left out.
    ask: Whether the daemon is asked which paths it gets from its own upstreams. They are left out too.
    """

    key_names: tuple[str, ...] = KEY_NAMES
    upstreams: tuple[str, ...] = ()
    ask: bool = True


async def push_paths(
    paths: Sequence[str],
    to: str,
    *,
    nix_store: str | None = None,
    store_dir: str = STORE_DIR,
    jobs: int | None = None,
    skip: Skip | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Pushed, None]:
    """Push `paths` with their closures to the cache at `to`. Yield the outcome of each path of the closures, references first.

    `paths` are store paths, their base names, or symlinks to store paths. One that is malformed, or not valid in Nix's store, is an
    outcome with an error, and the others are pushed. `to` is `http(s)://host[:port][/cache]`, or the address of a store.
    `nix_store` is the store of Nix on this machine, in Nix's words (None: its own). Paths of `skip` are left out. To push again
    what was pushed costs little. `account.expected` hears of the bytes of the NARs, before anything else.

    Raises:
        InvalidError: `to` is malformed, or Nix refuses to answer.
        UnavailableError: the cache cannot be reached, or does not answer any more; or Nix is not installed. What was yielded stays.
        DeniedError, ExhaustedError, UnsupportedError: the cache does not take it.
    """
    nix = NixStore.at(nix_store, store_dir)
    account = account or Account()
    named: list[StorePath] = []
    for path in paths:
        try:
            named.append(named_path(path, store_dir))
        except InvalidError as error:
            yield Pushed(path, PushStatus.FAILED, error=error)
    if not named:
        return
    async with AsyncExitStack() as opened:
        described, target = await _both(nix, named, to, store_dir, opened)
        stated: list[StatedPath] = []
        for name, value in described.items():
            read = _read(name, value, store_dir)
            if isinstance(read, Pushed):
                yield read
            else:
                stated.append(read)
        reasons = await _skipped(stated, target, skip, store_dir) if skip is not None else {}
        for skipped, reason in reasons.items():
            yield Pushed(skipped.absolute(store_dir), PushStatus.SKIPPED, reason)
        stated = [each for each in stated if each.store_path not in reasons]
        account.expected(sum(each.nar.size for each in stated))
        async with aclosing(_copies(target, stated, nix, set(reasons), jobs, account)) as copies:
            async for each in copies:
                yield Pushed(each.store_path.absolute(store_dir), PushStatus(each.status.value), error=each.error)


async def _both(
    nix: NixStore, named: Sequence[StorePath], to: str, store_dir: str, opened: AsyncExitStack
) -> tuple[dict[str, Json | None], Store | Target]:
    """What Nix says of the closure, and what stands at `to`: both are asked at once."""
    asking = asyncio.ensure_future(nix.closure(named))
    try:
        await asyncio.sleep(0)  # the question is on its way
        from tvix_store.config.push_target import open_push_target
        from tvix_store.services.store import Store

        target = await open_push_target(to, store_dir=store_dir)
        opened.push_async_callback(target.close if isinstance(target, Store) else target.cache.close)
        return await asking, target
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def _read(name: str, value: Json | None, store_dir: str) -> StatedPath | Pushed:
    if value is None:
        return Pushed(name, PushStatus.FAILED, error=InvalidError(f"{name} is not a valid path in the store of Nix"))
    try:
        return stated_path(name, value, store_dir)
    except InvalidError as error:
        return Pushed(name, PushStatus.FAILED, error=error)


async def _skipped(stated: Sequence[StatedPath], target: Store | Target, skip: Skip, store_dir: str) -> dict[StorePath, str]:
    from tvix_store.operations.paths.skip_upstream import upstream_paths
    from tvix_store.services.store import Store

    async with AsyncExitStack() as opened:
        upstreams = []
        for url in skip.upstreams:
            from tvix_store.config.caches import open_upstream, parse_cache

            upstreams.append(await open_upstream(parse_cache(url), store_dir))
            opened.push_async_callback(upstreams[-1].close)
        asked = target.path_infos if skip.ask and isinstance(target, Store) else None
        return await upstream_paths(stated, skip.key_names, asked, upstreams)


def _copies(
    target: Store | Target,
    stated: Sequence[StatedPath],
    nix: NixStore,
    elsewhere: set[StorePath],
    jobs: int | None,
    account: Account,
) -> AsyncGenerator[Copied, None]:
    from tvix_store.services.store import Store

    if isinstance(target, Store):
        from tvix_store.operations.paths.push_to_store import push_to_store

        return push_to_store(target, stated, nix.file, elsewhere=elsewhere, jobs=jobs, account=account)
    from tvix_store.cli.key_files import read_signing_keys
    from tvix_store.cli.output import warn
    from tvix_store.operations.paths.push_to_cache import push_to_cache

    if target.terms.ignored:
        warn(f"{target.cache.name}: ignored, since it means nothing here: {', '.join(target.terms.ignored)}")
    return push_to_cache(
        target.cache,
        stated,
        nix.file,
        compression=target.terms.compression,
        signing_keys=read_signing_keys(target.terms.secret_keys),
        store_dir=nix.store_dir,
        elsewhere=elsewhere,
        jobs=jobs,
        account=account,
    )

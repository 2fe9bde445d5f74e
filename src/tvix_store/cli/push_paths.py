"""push_paths: bring store paths of Nix, with all they refer to, into a cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tvix_store.config import open_store
from tvix_store.errors import InvalidError
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.nix_json import StatedPath, stated_path
from tvix_store.operations.paths.nix_store import NixStore, named_path
from tvix_store.operations.paths.push_to_store import push_to_store
from tvix_store.operations.paths.pushed import Pushed, PushStatus


async def push_paths(
    paths: Sequence[str],
    to: str,
    *,
    nix_store: str | None = None,
    store_dir: str = STORE_DIR,
    jobs: int | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Pushed, None]:
    """Push `paths` with their closures to the cache at `to`. Yield the outcome of each path of the closures, references first.

    `paths` are store paths, their base names, or symlinks to store paths. One that is malformed, or not valid in Nix's store, is an
    outcome with an error, and the others are pushed. `to` is `http(s)://host[:port][/cache]`, or the address of a store. `nix_store` is
    the store of Nix on this machine, in Nix's words (None: its own). To push again what was pushed costs little.

    Raises:
        InvalidError: `to` is malformed, or Nix refuses to answer.
        UnavailableError: the cache cannot be reached, or does not answer any more; or Nix is not installed. What was yielded stays.
        DeniedError, ExhaustedError, UnsupportedError: the cache does not take it.
    """
    nix = NixStore.at(nix_store, store_dir)
    named: list[StorePath] = []
    for path in paths:
        try:
            named.append(named_path(path, store_dir))
        except InvalidError as error:
            yield Pushed(path, PushStatus.FAILED, error=error)
    stated: list[StatedPath] = []
    for name, value in (await nix.closure(named)).items():
        if value is None:
            yield Pushed(name, PushStatus.FAILED, error=InvalidError(f"{name} is not a valid path in the store of Nix"))
            continue
        try:
            stated.append(stated_path(name, value, store_dir))
        except InvalidError as error:
            yield Pushed(name, PushStatus.FAILED, error=error)
    address = f"grpc+{to}/push" if to.startswith(("http://", "https://")) else to
    async with (
        await open_store(address, store_dir=store_dir) as store,
        aclosing(push_to_store(store, stated, nix.file, jobs=jobs, account=account)) as copies,
    ):
        async for each in copies:
            yield Pushed(each.store_path.absolute(store_dir), PushStatus(each.status.value), error=each.error)

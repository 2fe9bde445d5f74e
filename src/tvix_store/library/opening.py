"""open_store: the store at an address, with and without `await`."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any

from tvix_store import config
from tvix_store.errors import InvalidError
from tvix_store.library.store import Store, opened
from tvix_store.model.file_path import StrPath
from tvix_store.model.signature import PublicKey
from tvix_store.model.wanted import wanted_path


class StoreOpening:
    """A store that is about to be opened: `async with` it, or `await` it and close the store."""

    def __init__(self, opening: Coroutine[Any, Any, Store]) -> None:
        self._opening = opening
        self._store: Store

    def __repr__(self) -> str:
        return "<a store that is not open yet: await it, or use it in `async with`>"

    def __await__(self) -> Generator[Any, Any, Store]:
        return self._opening.__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._opening
        return self._store

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._store.close()


def open_store(
    address: StrPath | None = None,
    *,
    blobs: StrPath | None = None,
    directories: StrPath | None = None,
    path_infos: StrPath | None = None,
    composition: StrPath | Mapping[str, Any] | None = None,
    store_dir: str | None = None,
    substituters: Sequence[str] = (),
    substituter_public_keys: Sequence[PublicKey] = (),
    create: bool = True,
    scrub_days: float = 0,
) -> StoreOpening:
    """Open the store at `address`, a URL or a path; by default the embedded store in the user's data directory.

        async with open_store("local:///var/lib/store") as store: …

        store = await open_store(Path("store"))  # and later: await store.close()

    `blobs`, `directories` and `path_infos` are addresses of single services that stand elsewhere. `composition` takes the place of
    all addresses: it is a TOML file, or a mapping with the same tables (docs/composition.md). `store_dir` is the directory of
    Nix's store: by default the one that the store was made for, and `/nix/store` for a new one. It is a part of what a store path
    stands for, so a local store takes no other one than it was made for.
    `substituters` are the URLs of binary caches from which missing paths are fetched. A path must be signed by a key in the
    cache's URL or, if the URL has none, by one of `substituter_public_keys` or a well-known cache's own key.
    An embedded store is made where there is none, unless `create` is False.
    Local stores read all of their content once in `scrub_days`, to look for damage; with 0 they don't.

    Raises:
        InvalidError: an address is malformed, or of an unknown scheme; a composition is wrong.
        NoStoreError: an embedded store is not there, and `create` is False.
        UnsupportedError: a service is nowhere to be found; the error says which, and what has it not.
        DeniedError, UnavailableError, ExhaustedError, CorruptError: a store cannot be opened.
    """

    async def open_it() -> Store:
        store = await config.open_store(
            _address(address),
            blobs=_address(blobs),
            directories=_address(directories),
            path_infos=_address(path_infos),
            composition=composition,
            store_dir=store_dir,
            substituters=substituters,
            substituter_public_keys=substituter_public_keys,
            create=create,
            scrub_days=scrub_days,
        )
        return opened(store)

    return StoreOpening(open_it())


def _address(address: StrPath | None) -> str | None:
    """An address as a text. A path that is no text is absolute: it may have neither a slash nor anything before a colon.

    Raises:
        InvalidError: it is neither, or empty. The default store is not what was meant.
    """
    if address == "":
        raise InvalidError("the address of the store is empty; leave it out for the default store")
    if address is None or isinstance(address, str):
        return address
    return os.path.abspath(wanted_path(address, "an address: a URL, or a path"))

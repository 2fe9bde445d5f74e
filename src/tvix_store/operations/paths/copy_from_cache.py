"""copy_from_cache: bring store paths from a binary cache into a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import InvalidError, NotFoundError, StoreError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.fetch_parts import PartsFetcher
from tvix_store.operations.paths.path_copies import Copied, PathCopies, stated_paths
from tvix_store.operations.paths.substitute import check_narinfo, fetch_path
from tvix_store.services.store import Store
from tvix_store.services.upstream import Upstream, UpstreamFailsError, UpstreamLacksError, UpstreamLiesError

JOBS = 8
"""NARs that are fetched at a time; each takes some 20 MB."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A binary cache, and what is believed of it: paths that one of the keys has signed, or `unsigned` ones too."""

    upstream: Upstream
    public_keys: tuple[PublicKey, ...]
    unsigned: bool = False
    output_hashes: Callable[[], Awaitable[Sequence[bytes]]] | None = None
    """The hashes of all paths, where the cache tells what it has."""

    async def narinfo(self, output_hash: bytes, store_dir: str) -> NarInfo | None:
        """What the cache says of a path, checked.

        Raises:
            UpstreamDownError, UpstreamLiesError: there is no answer, or none that is believed.
        """
        narinfo = await self.upstream.narinfo(output_hash)
        if narinfo is not None:
            check_narinfo(narinfo, output_hash, self.public_keys, store_dir=store_dir, unsigned=self.unsigned)
        return narinfo


async def named_narinfos(cache: Cache, names: Sequence[str], *, store_dir: str, closure: bool) -> list[NarInfo]:
    """The narinfos of the store paths that `names` name; with their `closure`, also of all they refer to, directly or not.

    Raises:
        InvalidError: a name is not a store path, its base name, or its hash; or what the cache says is not believed.
        NotFoundError: the cache lacks a path, or has it under another name.
        UnavailableError: the cache does not answer.
        ExhaustedError: the closure is too large.
    """
    await cache.upstream.priority()  # is it one for our store directory?

    async def ask(wanted: Sequence[bytes]) -> list[NarInfo]:
        told = await each_at_once(lambda output_hash: cache.narinfo(output_hash, store_dir), wanted)
        return [each for each in told if each is not None]

    return await stated_paths(ask, names, store_dir=store_dir, source=cache.upstream.name, closure=closure)


async def all_narinfos(cache: Cache, refused: Callable[[StoreError], None], *, store_dir: str) -> list[NarInfo]:
    """The narinfos of all paths of the cache. `refused` gets the errors of those that cannot be read, or are not believed.

    Raises:
        InvalidError: the cache does not tell what it has, or is for another store directory.
        UnavailableError: the cache does not answer.
    """
    if cache.output_hashes is None:
        raise InvalidError(f"{cache.upstream.name} is a binary cache that does not tell what it has: name the paths to copy")
    await cache.upstream.priority()  # is it one for our store directory?

    async def narinfo(output_hash: bytes) -> NarInfo | None:
        try:
            return await cache.narinfo(output_hash, store_dir)
        except (UpstreamLiesError, UpstreamFailsError) as error:
            refused(error)
            return None

    told = await each_at_once(narinfo, await cache.output_hashes())
    return [each for each in told if each is not None]


async def copy_from_cache(
    cache: Cache,
    target: Store,
    narinfos: Iterable[NarInfo],
    *,
    jobs: int | None = None,
    deltas: bool | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy paths of `cache`, whose `narinfos` were checked, to `target`. Yields the outcome of each, references first.

    A path that the target has with the same NAR is not fetched, and new signatures are added to it. An error of one path keeps this
    path, and all that refer to it, from being recorded; the others are copied.

    Raises:
        InvalidError: the references go round in a circle.
        ExhaustedError, UnavailableError, UnsupportedError: the target cannot take them, or the cache does not answer.
    """
    copies = _CacheCopies(cache, target, jobs or JOBS, account or Account(), deltas)
    try:
        async with aclosing(copies.run(narinfos)) as outcomes:
            async for each in outcomes:
                yield each
    finally:
        await copies.close()


class _CacheCopies(PathCopies[NarInfo, PathInfo]):
    def __init__(self, cache: Cache, target: Store, jobs: int, account: Account, deltas: bool | None) -> None:
        super().__init__(target.path_infos, cache.upstream.name, jobs)
        self._store = target
        self._cache = cache
        self._account = account
        self._parts = PartsFetcher(cache.upstream, target, deltas=deltas, account=account)

    async def close(self) -> None:
        await self._parts.close()

    async def merged(self, known: PathInfo, stated: NarInfo) -> PathInfo:
        self._account.logical += stated.nar.size
        self._account.moved(stated.nar.size)
        return known.with_signatures(stated.signatures)

    async def bring(self, stated: NarInfo) -> PathInfo:
        try:
            path_info = await self._parts.fetch(stated)
            if path_info is None:
                path_info = await fetch_path(self._store, self._cache.upstream, stated)
                self._account.sent += stated.file_size or stated.nar.size
                self._account.moved(stated.nar.size)
        except UpstreamLacksError as error:
            raise NotFoundError("the NAR of", f"{stated.store_path}: {error}; it") from None
        self._account.logical += stated.nar.size
        return path_info

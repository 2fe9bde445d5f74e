"""The stores that a daemon serves: the one that it is started for, and its named caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation
from tvix_store.cli.named_caches import NamedCacheOption

if TYPE_CHECKING:
    from tvix_store.cli.collecting import CollectionTerms
    from tvix_store.http.settings import CacheSettings
    from tvix_store.model.signature import PublicKey
    from tvix_store.server.settings import NamedCacheConfig
    from tvix_store.services.store import Store


@dataclass(frozen=True, slots=True)
class ServedStore:
    """How a store is opened to be served.

    cache: The named cache of the store, or None for all of it.
    quota: The bytes of the files that the cache may hold; None for no bound.
    scrub_days: In how many days all content is read once; 0 is never. Named caches have no content of their own.
    collection: When its collection runs; None is never. That of a store looks after its named caches.
    retention: How long it keeps paths that nobody uses, as in `90d`; None is for ever.
    substituters: URLs of its upstreams, whose paths are signed by `substituter_public_keys` or keys in the URLs.
    checked_keys: Keys whose signatures are checked when paths are put.
    signs: Whether its narinfos are signed here. Then all is calculated here: what is signed here is seen here.
    """

    invocation: Invocation
    cache: str | None = None
    quota: int | None = None
    retention: str | None = None
    substituters: Sequence[str] = ()
    substituter_public_keys: Sequence[PublicKey] = ()
    checked_keys: Sequence[PublicKey] = ()
    require_signatures: bool = False
    require_references: bool = True
    signs: bool = False
    read_only: bool = False
    scrub_days: float = 0
    collection: CollectionTerms | None = None

    async def open(self) -> Store:
        """Open it.

        Raises:
            DeniedError: it can only be read, and is to be written to.
            StoreError: it cannot be opened.
        """
        from tvix_store.cli.collecting import collected
        from tvix_store.config import read_only as made_read_only
        from tvix_store.config import verified
        from tvix_store.config.links import with_links
        from tvix_store.errors import DeniedError

        opened = await self.invocation.open_store(
            substituters=self.substituters,
            substituter_public_keys=self.substituter_public_keys,
            create=True,
            cache=self.cache,
            quota=self.quota,
            retention=None if self.read_only else self.retention,
            scrub_days=self.scrub_days,
        )
        if opened.read_only and not self.read_only:
            await opened.close()
            raise DeniedError(f"{opened.name} can only be read here: serve it with --read-only, or as a user who may write to it")
        linked = opened if self.read_only else await with_links(opened, self.invocation.addresses())
        store = verified(
            linked,
            self.checked_keys,
            require_signatures=self.require_signatures,
            require_references=self.require_references,
            trust_nar=not self.signs,
        )
        if self.read_only:
            return made_read_only(store)
        return store if self.collection is None else collected(store, self.collection)


def waits_for_nars(upstream_narinfos: str | None, *, signs: bool) -> bool:
    """Whether narinfos of upstreams wait for their NARs: as the option says; without it, where the cache signs narinfos."""
    return upstream_narinfos == "fetched" or (upstream_narinfos is None and signs)


def named_cache_config(
    served: ServedStore, settings: CacheSettings, option: NamedCacheOption, upstream_narinfos: str | None
) -> NamedCacheConfig:
    """A named cache beside `served`. `settings` are those of the whole store's cache. `upstream_narinfos`: that option.

    Raises:
        click.UsageError: the cache requires signatures, and has no key to check them with.
        InvalidError: a key or a URL is malformed, or a file cannot be read.
    """
    from tvix_store.cli.key_files import read_public_keys
    from tvix_store.config.secret_key import read_secret_key
    from tvix_store.config.substituters import checked_urls
    from tvix_store.server.settings import NamedCacheConfig

    signing_keys = tuple(map(read_secret_key, option.signing_key_files))
    trusted_keys = read_public_keys(option.trusted_public_keys) or settings.trusted_keys
    checked_keys = (*trusted_keys, *(key.public for key in signing_keys))
    require_signatures = option.require_signatures or served.require_signatures
    if require_signatures and not checked_keys:
        raise click.UsageError(f"cache {option.name}: require-signatures needs trusted-public-keys to check them with")
    store = replace(
        served,
        cache=option.name,
        quota=option.quota,
        retention=option.retention,
        scrub_days=0,
        collection=None,
        substituters=checked_urls(option.substituters, require_signatures=require_signatures),
        substituter_public_keys=read_public_keys(option.substituter_public_keys),
        checked_keys=checked_keys,
        require_signatures=require_signatures,
        signs=bool(signing_keys),
    )
    its_settings = replace(
        settings,
        signing_keys=signing_keys,
        trusted_keys=trusted_keys,
        waits_for_nars=waits_for_nars(upstream_narinfos, signs=bool(signing_keys)),
    )
    if option.priority is not None:
        its_settings = replace(its_settings, priority=option.priority)
    return NamedCacheConfig(option.name, store.open, its_settings, option.private, tuple(store.substituters))

"""The types of a composition that need a whole store: upstream caches that fill it, and signing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tvix_store.config.composition.node import Node, StoreLayer
from tvix_store.config.composition.parameter import ADDRESS, NUMBER, PATH, PUBLIC_KEYS, SWITCH, parameter, reference
from tvix_store.config.composition.upstreams import Upstreams
from tvix_store.errors import StoreError
from tvix_store.model.address import Address
from tvix_store.services.store import Store

_SCHEMES = ("http", "https", "nix+http", "nix+https", "file", "nix+file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nix(StoreLayer):
    """The paths of an upstream binary cache. A path that is asked for is fetched, and its content put where the references say.

    inner: Where path infos are kept, unless it is the `far` of a cache, whose `near` keeps them.
    """

    base_url: str = field(metadata=parameter(ADDRESS))
    public_keys: tuple[str, ...] = field(default=(), metadata=parameter(PUBLIC_KEYS, also=("trusted_public_keys",)))
    require_signatures: bool = field(default=True, metadata=parameter(SWITCH))
    priority: int | None = field(default=None, metadata=parameter(NUMBER))
    blob_service: Node = field(metadata=reference("blobs", otherwise="&root"))
    directory_service: Node = field(metadata=reference("directories", otherwise="&root"))
    inner: Node | None = field(default=None, metadata=reference("path_infos"))

    def faults(self) -> Iterator[tuple[str, str]]:
        if Address.parse(self.base_url).scheme not in _SCHEMES:
            yield "base_url", "a binary cache is https://…, or file:///… for one in a directory"

    def resolved(self) -> Upstreams:
        given = {
            "trusted-public-keys": quote(" ".join(self.public_keys), safe=":/+=") if self.public_keys else None,
            "require-signatures": None if self.require_signatures else "false",
            "priority": self.priority,
        }
        parameters = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
        separator = ("&" if "?" in self.base_url else "?") if parameters else ""
        upstreams = Upstreams((f"{self.base_url}{separator}{parameters}",), (), self.blob_service, self.directory_service)
        return upstreams if self.inner is None else upstreams.keeping_in(self.inner)


@dataclass(frozen=True, slots=True)
class KeyfileSigning(StoreLayer):
    """Path infos that are signed when they are put, with the key in a file; after they were found to be true of the content."""

    keyfile: str = field(metadata=parameter(PATH))
    blob_service: Node = field(metadata=reference("blobs", otherwise="&root"))
    directory_service: Node = field(metadata=reference("directories", otherwise="&root"))
    inner: Node = field(metadata=reference())

    def secret_files(self) -> Iterator[str]:
        yield self.keyfile

    def found(self) -> Iterator[tuple[str, str]]:
        from tvix_store.config.secret_key import read_secret_key

        try:
            read_secret_key(Path(self.keyfile))
        except StoreError as error:
            yield "keyfile", str(error)

    async def over(self, store: Store, kept_at: str) -> Store:
        from tvix_store.config.secret_key import read_secret_key
        from tvix_store.config.verifying import calculating_here
        from tvix_store.layers.signing import SigningPathInfos
        from tvix_store.layers.verifying import VerifyingPathInfos

        key = read_secret_key(Path(self.keyfile))
        # What is signed here is computed here: no server's word is taken for the NAR.
        store = calculating_here(store)
        signing = VerifyingPathInfos(SigningPathInfos(store, key), store.nar)
        return store.with_services(path_infos=signing, keep=["statistics", "named_paths", "arrivals", "removal", "collection"])

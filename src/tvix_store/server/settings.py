"""Settings of a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tvix_store.access.settings import AccessSettings
from tvix_store.errors import InvalidError
from tvix_store.http.settings import CacheSettings
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.server.browser_guard import check_host, check_origin
from tvix_store.server.forwarded import check_proxy
from tvix_store.server.limits import Limits
from tvix_store.services.store import Store
from tvix_store.traffic import MEMORY, STALL

DEFAULT_ADDRESS = "localhost:8000"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files of TLS, all PEM.

    certificate: The server's certificate chain.
    key: Its private key.
    client_ca: Certificates of authorities. A client may show a certificate that one of them has signed, and no other.
    needs_client: Whether a client must show one.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    needs_client: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.certificate, self.key, *([self.client_ca] if self.client_ca else []))


OpenStore: TypeAlias = Callable[[], Coroutine[Any, Any, Store]]
"""Opens the store of one worker, in the worker."""


@dataclass(frozen=True, slots=True)
class NamedCacheConfig:
    """A named cache.

    open_store: Opens its store.
    cache: Settings of its binary cache.
    private: Whether strangers may not even read.
    upstreams: URLs of its upstreams.
    """

    name: str
    open_store: OpenStore
    cache: CacheSettings
    private: bool = False
    upstreams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How to serve.

    listen: Addresses, in the forms of `listeners.parse`.
    allow_remote: Whether an address may be reached from other machines.
    allow_hosts: Names by which browsers may know the server on this machine, beside those in `listen`.
    allow_origins: Origins of web pages that may write, as in `https://example.org`.
    workers: Number of processes that share the listeners.
    grace: Seconds that running calls get to finish when the server goes down.
    max_message: Bytes of the largest gRPC message.
    access: Who may use the store.
    caches: Named caches. With them, the whole store is for clients alone that have shown who they are.
    default_cache: The one for strangers that name none.
    tls: Certificate and key. With them, TCP listeners serve TLS.
    cache: Settings of the binary cache.
    memory: Bytes that a worker keeps for all its clients together. Requests and answers have a budget of this size each.
    send_timeout: Seconds that a client may take nothing of an answer.
    limits: What one client may do at a worker.
    trusted_proxies: IP addresses and networks of proxies, or `unix`, whose `X-Forwarded-For` tells the address of a client.
    access_log: The form of a line for each request, `text` or `json`. None: no such lines are written.
    traces: Whether traces are sent, as the environment says. Needs the extra `otel`.
    directories: Those of the local stores that are served, for the room on their disks.
    reread: Is called on SIGHUP, before the workers reload what they can. It says what needs a new start.
    """

    listen: tuple[str, ...] = (DEFAULT_ADDRESS,)
    allow_remote: bool = False
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    grace: float = 30.0
    max_message: int = MAX_MESSAGE
    access: AccessSettings = field(default_factory=AccessSettings)
    caches: tuple[NamedCacheConfig, ...] = ()
    default_cache: str | None = None
    tls: TlsFiles | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)
    memory: int = MEMORY
    send_timeout: float = STALL
    limits: Limits = field(default_factory=Limits)
    trusted_proxies: tuple[str, ...] = ()
    access_log: str | None = None
    traces: bool = False
    directories: tuple[Path, ...] = ()
    reread: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if not self.listen:
            raise InvalidError("no address to listen on")
        if self.workers < 1:
            raise InvalidError(f"workers must be at least 1, got {self.workers}")
        if self.memory < 1 or self.send_timeout <= 0:
            raise InvalidError(f"memory ({self.memory}) and send_timeout ({self.send_timeout:g}) must be positive")
        if self.grace < 0:
            raise InvalidError(f"grace must not be negative, got {self.grace:g}")
        names = [cache.name for cache in self.caches]
        if len(set(names)) < len(names):
            raise InvalidError(f"two caches have one name (of {', '.join(names)})")
        if self.default_cache is not None and self.default_cache not in names:
            raise InvalidError(f"there is no cache {self.default_cache!r} to be the default (known: {', '.join(names) or 'none'})")
        for proxy in self.trusted_proxies:
            check_proxy(proxy)
        for host in self.allow_hosts:
            check_host(host)
        for origin in self.allow_origins:
            check_origin(origin)

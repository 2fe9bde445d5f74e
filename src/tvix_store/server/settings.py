"""What a server may be told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tvix_store.errors import InvalidError
from tvix_store.http.settings import CacheSettings
from tvix_store.rpc.asgi import MAX_MESSAGE
from tvix_store.server.browser_guard import check_host, check_origin
from tvix_store.traffic import MEMORY, STALL

DEFAULT_ADDRESS = "localhost:8000"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How to serve.

    listen: addresses, in the forms of `listeners.parse`
    allow_remote: whether an address may be reached from other machines
    allow_hosts: names by which browsers may know the server on this machine, beside those in `listen`
    allow_origins: origins of web pages that may write, as in `https://example.org`
    workers: processes that share the listeners
    grace: seconds that running calls get to finish when the server goes down
    max_message: bytes of one gRPC message
    tls: serve TLS, on TCP
    cache: what the binary cache offers and takes
    memory: bytes that all clients together may make a worker keep of what they send, and of what they ask for
    send_timeout: seconds that a client may take nothing of an answer
    """

    listen: tuple[str, ...] = (DEFAULT_ADDRESS,)
    allow_remote: bool = False
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    grace: float = 30.0
    max_message: int = MAX_MESSAGE
    tls: TlsFiles | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)
    memory: int = MEMORY
    send_timeout: float = STALL

    def __post_init__(self) -> None:
        if not self.listen:
            raise InvalidError("no address to listen on")
        if self.workers < 1:
            raise InvalidError(f"workers must be at least 1, got {self.workers}")
        if self.memory < 1 or self.send_timeout <= 0:
            raise InvalidError(f"memory ({self.memory}) and send_timeout ({self.send_timeout:g}) must be positive")
        if self.grace < 0:
            raise InvalidError(f"grace must not be negative, got {self.grace:g}")
        for host in self.allow_hosts:
            check_host(host)
        for origin in self.allow_origins:
            check_origin(origin)

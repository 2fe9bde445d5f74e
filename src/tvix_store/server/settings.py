"""Settings of a server."""

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

    listen: Addresses, in the forms of `listeners.parse`.
    allow_remote: Whether an address may be reached from other machines.
    allow_hosts: Names by which browsers may know the server on this machine, beside those in `listen`.
    allow_origins: Origins of web pages that may write, as in `https://example.org`.
    workers: Number of processes that share the listeners.
    grace: Seconds that running calls get to finish when the server goes down.
    max_message: Bytes of the largest gRPC message.
    tls: Certificate and key. With them, TCP listeners serve TLS.
    cache: Settings of the binary cache.
    memory: Bytes that a worker keeps for all its clients together. Requests and answers have a budget of this size each.
    send_timeout: Seconds that a client may take nothing of an answer.
    access_log: The form of a line for each request, `text` or `json`. None: no such lines are written.
    traces: Whether traces are sent, as the environment says. Needs the extra `otel`.
    directories: Those of the local stores that are served, for the room on their disks.
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
    access_log: str | None = None
    traces: bool = False
    directories: tuple[Path, ...] = ()

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

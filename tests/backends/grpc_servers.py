"""Servers for the tests of the gRPC client: our own engine, with whatever methods a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from tests.tcp_server import pass_on, tcp_server
from tests.tcp_server import port as server_port
from tvix_store.backends.memory import open_store as open_memory_store
from tvix_store.config import verified
from tvix_store.operations.granular.plain import granular_of
from tvix_store.protocol.dialects import (
    BLOB_STORE_SERVICE,
    BULK_SERVICE,
    CHUNK_STORE_SERVICE,
    DIALECTS,
    SETTINGS_SERVICE,
    STATISTICS_SERVICE,
    Dialect,
)
from tvix_store.protocol.settings import BULK_VERSION, StoreSettings
from tvix_store.rpc.asgi import MAX_MESSAGE, RpcApp, not_found
from tvix_store.rpc.handlers.blobs import blob_methods
from tvix_store.rpc.handlers.bulk import bulk_methods
from tvix_store.rpc.handlers.bulk_path_infos import bulk_path_info_methods
from tvix_store.rpc.handlers.chunk_stores import chunk_store_methods
from tvix_store.rpc.handlers.directories import directory_methods
from tvix_store.rpc.handlers.granular import granular_methods
from tvix_store.rpc.handlers.path_infos import path_info_methods
from tvix_store.rpc.handlers.settings import settings_methods
from tvix_store.rpc.handlers.statistics import statistics_methods
from tvix_store.rpc.method import Method, Takes
from tvix_store.rpc.reflection import reflection_methods
from tvix_store.server.listeners import listening, name
from tvix_store.server.serving import serving
from tvix_store.server.settings import ServerConfig, TlsFiles
from tvix_store.services.store import Store

ANYTHING = Takes(max_message=MAX_MESSAGE)
"""For methods that stand in for those that take content."""

PROTOCOL = "grpc"
"""The protocol that clients speak, unless a test says another. Over Unix sockets it is always gRPC."""


async def store_methods(
    *,
    store: Store | None = None,
    dialects: Iterable[Dialect] = DIALECTS,
    bulk: bool = True,
    granular: bool = False,
    chunks: bool = False,
    whole_blobs: bool = True,
    reflection: bool = True,
) -> dict[str, Method]:
    """The methods of a server of `store`, by default a new one in memory that takes only true path infos.

    `bulk`: with the first calls of our BulkService, as an older server of ours; `granular`: with the others too;
    `chunks`: with snix's services of chunks; `whole_blobs`: with BlobService.
    """
    store = store or verified(await open_memory_store())
    methods: dict[str, Method] = bulk_methods(store.blobs, MAX_MESSAGE) if bulk else {}
    services = [BULK_SERVICE] if bulk else []
    if granular:
        methods |= granular_methods(granular_of(store), MAX_MESSAGE)
        methods |= bulk_path_info_methods(store.path_infos)
        methods |= settings_methods(StoreSettings(store.size_rule, store.store_dir, BULK_VERSION))
        services.append(SETTINGS_SERVICE)
    if chunks:
        methods |= chunk_store_methods(store.blobs, store.assembling)
        services += [CHUNK_STORE_SERVICE, BLOB_STORE_SERVICE]
    if store.statistics is not None:
        methods |= statistics_methods(store.statistics)
        services.append(STATISTICS_SERVICE)
    for dialect in dialects:
        if whole_blobs:
            methods |= blob_methods(store.blobs, store.known_nars, dialect, MAX_MESSAGE)
        methods |= directory_methods(store.directories, dialect, MAX_MESSAGE)
        methods |= path_info_methods(store.path_infos, store.nar, dialect)
        services += dialect.services if whole_blobs else dialect.services[1:]
    return methods | reflection_methods(dict.fromkeys(services)) if reflection else methods


@asynccontextmanager
async def serve(
    methods: Mapping[str, Method], listen: str = "127.0.0.1:0", tls: TlsFiles | None = None, protocol: str | None = None
) -> AsyncIterator[str]:
    """Serve `methods` on `listen`; the address, as a URL of the client, which is to speak `protocol`, or PROTOCOL."""
    config = ServerConfig(listen=(listen,), grace=0, tls=tls)
    with listening(config.listen) as sockets:
        async with serving(RpcApp(methods, not_found), sockets, config):
            where = name(sockets[0])
            if where.startswith("unix:"):
                yield f"grpc+unix://{where.removeprefix('unix:')}"
            else:
                yield f"{protocol or PROTOCOL}+{'https' if tls else 'http'}://{where}"


class Proxy:
    """Stands between client and server on `url`, and can break all connections at once, as a server does that is killed."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Proxy]:
        """A proxy before the server at `url`, which has a host and a port."""
        host, _, port = url.rpartition("/")[2].rpartition(":")
        proxy = cls(host, int(port))
        async with tcp_server(proxy._accept) as server:
            proxy._server = server
            proxy.url = f"{PROTOCOL}+http://127.0.0.1:{server_port(server)}"
            yield proxy

    def kill(self) -> None:
        """Break the connections, and take no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, server_writer}
        try:
            await asyncio.gather(pass_on(reader, server_writer), pass_on(server_reader, writer))
        finally:
            server_writer.transport.abort()

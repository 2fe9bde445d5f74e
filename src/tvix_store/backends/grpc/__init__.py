"""The backends `grpc+http://`, `grpc+https://` and `grpc+unix://`: a client of any server that speaks one of the dialects.

Also `connect+http://` and `connect+https://`: the same over plain HTTP, for servers of ours.

Nothing that a server sends is trusted; see docs/design/grpc-client.md.
"""

from __future__ import annotations

import asyncio

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.blobs import GrpcBlobs, GrpcLoneFiles
from tvix_store.backends.grpc.bulk_path_infos import BulkPathInfos
from tvix_store.backends.grpc.channel import THOROUGH
from tvix_store.backends.grpc.chunk_store_granular import ChunkStoreGranular
from tvix_store.backends.grpc.chunked_blobs import ChunkedBlobs
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.deltas import GrpcDeltas
from tvix_store.backends.grpc.directories import GrpcDirectories
from tvix_store.backends.grpc.discovery import Abilities, discover
from tvix_store.backends.grpc.granular import BulkGranular
from tvix_store.backends.grpc.path_infos import GrpcNar, GrpcPathInfos
from tvix_store.backends.grpc.received import decoding
from tvix_store.backends.grpc.small_blobs import BulkBlobs
from tvix_store.backends.grpc.statistics import GrpcStatistics
from tvix_store.backends.grpc.whole_blobs import WholeBlobs
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.layers.composing import composed
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR
from tvix_store.operations.granular.plain import PlainGranular
from tvix_store.protocol.dialects import SETTINGS_SERVICE
from tvix_store.protocol.settings import BULK_VERSION, PARTS_VERSION, PATH_INFOS_VERSION, StoreSettings, decode_settings
from tvix_store.services.granular import Granular
from tvix_store.services.offer import Offer
from tvix_store.services.store import Store

__all__ = ["open_offer", "open_store"]


async def open_store(url: str, *, store_dir: str | None = None, patience: float = THOROUGH) -> Store:
    """The store at a server that has all services; as `open_offer`."""
    offer = await open_offer(url, store_dir=store_dir, patience=patience)
    try:
        return composed(offer, offer, offer)
    except UnsupportedError:
        await offer.close()
        raise


async def open_offer(url: str, *, store_dir: str | None = None, patience: float = THOROUGH) -> Offer:
    """What a server offers, at `grpc+http://host:port`, `grpc+https://host:port` or `grpc+unix:///path`, or, over plain HTTP, at
    `connect+http://host:port` or `connect+https://host:port`. A server of ours has its stores below paths too.

    A user and a password, or any user and a token, stand before the host, or in a netrc file. Parameters of the URL:
    `dialect=seed|tvix|snix` (default: the first that the server speaks, of tvix, snix and seed); `wait-connect=1` waits up to a
    minute for a server that is not there yet; `ca=PATH`, with TLS, is a PEM file of the authorities to trust; `max_body=BYTES`,
    over plain HTTP, bounds the body of a request. The offer belongs to the running event loop. A server that has no path infos
    calculates no NARs either.
    `store_dir` is where Nix has its store; None means as the server says. `patience` bounds the seconds in which the server must
    answer, or send the next of many messages.

    Raises:
        InvalidError: the URL is malformed, or the server says that its paths are of another `store_dir`.
        UnavailableError: the server is not there.
        UnsupportedError: it speaks no dialect that we do, or not the one that is wanted.
        DeniedError: it does not let us.
    """
    address = ServerAddress.parse(url).with_netrc()
    connection = Connection(address, patience)
    try:
        can, told = await _asked(connection, address)
        settings = _settings(connection, can, told, store_dir)
    except BaseException:
        await connection.close()
        raise
    chunked = ChunkedBlobs(connection) if can.chunks else None
    bulk = BulkBlobs(connection) if can.bulk else None
    has_all_calls = can.bulk and settings.bulk_version >= PARTS_VERSION
    blobs = _blobs(connection, can, chunked, bulk)
    parts = BulkGranular(connection, bulk) if bulk is not None and has_all_calls else None
    directories = GrpcDirectories(connection, can.dialect, parts) if can.directories else None
    granular: Granular | None = parts
    if parts is None and chunked is not None and blobs is not None and directories is not None:
        granular = ChunkStoreGranular(chunked, PlainGranular(blobs, directories, None))
    path_infos: GrpcPathInfos | None = None
    if can.path_infos:
        many = BulkPathInfos(connection) if has_all_calls else None
        path_infos = GrpcPathInfos(connection, can.dialect, many, puts_many=settings.bulk_version >= PATH_INFOS_VERSION)

    async def close() -> None:
        if path_infos is not None:
            await path_infos.close()
        await connection.close()

    return Offer(
        name=connection.server,
        blobs=blobs,
        directories=directories,
        path_infos=path_infos,
        nar=GrpcNar(connection, can.dialect) if can.path_infos else None,
        lone_files=GrpcLoneFiles(blobs) if blobs is not None and can.whole_blobs and connection.most_sent is None else None,
        granular=granular,
        deltas=GrpcDeltas(connection) if has_all_calls else None,
        many_path_infos=path_infos if settings.bulk_version >= BULK_VERSION else None,
        statistics=GrpcStatistics(connection) if can.counts else None,
        store_dir=settings.store_dir,
        size_rule=settings.size_rule,
        takes_any_sizes=not can.only_snix,
        check=connection.check,
        close=close,
    )


async def _asked(connection: Connection, address: ServerAddress) -> tuple[Abilities, bytes]:
    """The server's abilities, and its encoded settings; no bytes where it does not tell them.

    All questions go at once, so a store far away is opened in the time of one. Where the client is to wait for the server, they go
    when it is there.
    """
    if address.wait_connect:
        await connection.connect(wait=True)
    discovering = asyncio.ensure_future(discover(connection, address.dialect))
    settings = asyncio.ensure_future(connection.call(f"/{SETTINGS_SERVICE}/Get", b"", ("service", SETTINGS_SERVICE)))
    try:
        if not address.wait_connect:
            await connection.connect(wait=False)  # it says sooner than the others that nobody is there
        can = await discovering
        # A server without this service has refused the question, in whatever way.
        return can, await settings if can.settings else b""
    finally:
        for each in (discovering, settings):
            each.cancel()
        await asyncio.gather(discovering, settings, return_exceptions=True)


def _settings(connection: Connection, can: Abilities, told: bytes, store_dir: str | None) -> StoreSettings:
    """The settings of the server's store. A server that does not tell them has the usual ones, or those of snix until 2025."""
    if not can.settings:
        return StoreSettings(SizeRule.SNIX if can.only_snix else SizeRule.DOCUMENTED, store_dir or STORE_DIR)
    with decoding(connection.server):
        settings = decode_settings(told)
    # The same content has another path there: a daemon before this server would sign its paths as those of `store_dir`.
    if store_dir not in (None, settings.store_dir):
        raise InvalidError(
            f"{connection.server} holds paths of {settings.store_dir}, not of {store_dir}; use another store for these"
        )
    return settings


def _blobs(connection: Connection, can: Abilities, chunked: ChunkedBlobs | None, bulk: BulkBlobs | None) -> GrpcBlobs | None:
    whole = WholeBlobs(connection, can.dialect) if can.whole_blobs else None
    single = whole or chunked
    if single is None:
        return None
    # A body of bounded size holds a chunk, but not any blob.
    puts = chunked or single if connection.most_sent is not None else single
    return GrpcBlobs(connection.server, single, chunked or single, puts, bulk)

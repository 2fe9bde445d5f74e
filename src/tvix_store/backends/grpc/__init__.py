"""The backends `grpc+http://`, `grpc+https://` and `grpc+unix://`: a client of any server that speaks one of the dialects.

Nothing that a server sends is trusted; see docs/design/grpc-client.md.
"""

from __future__ import annotations

from tvix_store.backends.grpc.address import ServerAddress
from tvix_store.backends.grpc.blobs import GrpcBlobs, GrpcLoneFiles
from tvix_store.backends.grpc.chunked_blobs import ChunkedBlobs
from tvix_store.backends.grpc.connection import Connection
from tvix_store.backends.grpc.directories import GrpcDirectories
from tvix_store.backends.grpc.discovery import Offer, discover
from tvix_store.backends.grpc.path_infos import GrpcNar, GrpcPathInfos
from tvix_store.backends.grpc.received import decoding
from tvix_store.backends.grpc.small_blobs import BulkBlobs
from tvix_store.backends.grpc.statistics import GrpcStatistics
from tvix_store.backends.grpc.whole_blobs import WholeBlobs
from tvix_store.errors import InvalidError
from tvix_store.layers.nar_cache import MemoryNarCache
from tvix_store.layers.remembering_nar import RememberingNarService
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR
from tvix_store.protocol.dialects import SETTINGS_SERVICE
from tvix_store.protocol.settings import StoreSettings, decode_settings
from tvix_store.services.nar import NarService
from tvix_store.services.store import Store

__all__ = ["open_store"]


async def open_store(url: str, *, store_dir: str | None = None) -> Store:
    """The store that a server offers, at `grpc+http://host:port`, `grpc+https://host:port` or `grpc+unix:///path`.

    Parameters of the URL: `dialect=seed|tvix|snix` (default: the first that the server speaks, of tvix, snix and seed);
    `wait-connect=1` waits up to a minute for a server that is not there yet; `ca=PATH`, with TLS, is a PEM file of the
    authorities to trust. The store belongs to the running event loop. Where the server has no path infos, and therefore
    calculates no NARs, they are calculated here. `store_dir` is where Nix has its store; None means as the server says.

    Raises:
        InvalidError: the URL is malformed, or the server says that its paths are of another `store_dir`.
        UnavailableError: the server is not there.
        UnsupportedError: it speaks no dialect that we do, or not the one that is wanted.
        DeniedError: it does not let us.
    """
    address = ServerAddress.parse(url)
    connection = Connection(address)
    try:
        await connection.connect(wait=address.wait_connect)
        offer = await discover(connection, address.dialect)
        settings = await _settings(connection, offer, store_dir)
    except BaseException:
        await connection.close()
        raise
    blobs = _blobs(connection, offer)
    directories = GrpcDirectories(connection, offer.dialect)
    return Store(
        blobs=blobs,
        directories=directories,
        path_infos=GrpcPathInfos(connection, offer.dialect),
        nar=GrpcNar(connection, offer.dialect) if offer.path_infos else _own_nar(blobs, directories),
        lone_files=GrpcLoneFiles(blobs) if offer.whole_blobs else None,
        statistics=GrpcStatistics(connection) if offer.counts else None,
        store_dir=settings.store_dir,
        size_rule=settings.size_rule,
        check=connection.check,
        close=connection.close,
    )


async def _settings(connection: Connection, offer: Offer, store_dir: str | None) -> StoreSettings:
    """The settings of the server's store. A server that does not tell them has the usual ones, or those of snix until 2025."""
    if not offer.settings:
        return StoreSettings(SizeRule.SNIX if offer.only_snix else SizeRule.DOCUMENTED, store_dir or STORE_DIR)
    answer = await connection.call(f"/{SETTINGS_SERVICE}/Get", b"", ("service", SETTINGS_SERVICE))
    with decoding(connection.server):
        settings = decode_settings(answer)
    # The same content has another path there: a daemon before this server would sign its paths as those of `store_dir`.
    if store_dir not in (None, settings.store_dir):
        raise InvalidError(
            f"{connection.server} holds paths of {settings.store_dir}, not of {store_dir}; use another store for these"
        )
    return settings


def _blobs(connection: Connection, offer: Offer) -> GrpcBlobs:
    chunked = ChunkedBlobs(connection) if offer.chunks else None
    whole = WholeBlobs(connection, offer.dialect) if offer.whole_blobs or chunked is None else None
    single = whole or chunked
    assert single is not None
    return GrpcBlobs(connection.server, single, chunked or single, BulkBlobs(connection) if offer.bulk else None)


def _own_nar(blobs: GrpcBlobs, directories: GrpcDirectories) -> NarService:
    return RememberingNarService(blobs, directories, MemoryNarCache())

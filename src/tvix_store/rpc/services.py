"""All services of a store, as one table of methods and one application."""

from __future__ import annotations

from collections.abc import Sequence

from tvix_store.asgi import App
from tvix_store.operations.granular.plain import granular_of
from tvix_store.protocol.dialects import (
    BLOB_STORE_SERVICE,
    BULK_SERVICE,
    CHUNK_STORE_SERVICE,
    DIALECTS,
    SETTINGS_SERVICE,
    STATISTICS_SERVICE,
)
from tvix_store.protocol.settings import BULK_VERSION, StoreSettings
from tvix_store.rpc.asgi import MAX_MESSAGE, RpcApp, not_found
from tvix_store.rpc.handlers.blobs import blob_methods
from tvix_store.rpc.handlers.bulk import bulk_methods
from tvix_store.rpc.handlers.bulk_path_infos import bulk_path_info_methods
from tvix_store.rpc.handlers.chunk_stores import chunk_store_methods
from tvix_store.rpc.handlers.deltas import delta_methods
from tvix_store.rpc.handlers.directories import directory_methods
from tvix_store.rpc.handlers.granular import granular_methods
from tvix_store.rpc.handlers.path_infos import path_info_methods
from tvix_store.rpc.handlers.settings import settings_methods
from tvix_store.rpc.handlers.statistics import statistics_methods
from tvix_store.rpc.health import HEALTH_SERVICE, Health
from tvix_store.rpc.method import Method
from tvix_store.rpc.reflection import reflection_methods
from tvix_store.services import Store
from tvix_store.services.store import ServiceChecks
from tvix_store.traffic import Traffic


def serve_store(
    store: Store,
    *,
    max_message: int = MAX_MESSAGE,
    fallback: App = not_found,
    traffic: Traffic | None = None,
    private_places: Sequence[str] = (),
) -> tuple[RpcApp, Health]:
    """An ASGI application that offers `store` in all dialects, and its health, to be stopped when the server goes down.

    `max_message` bounds one message in bytes, `traffic` all that callers make the worker keep. Callers are not told of
    `private_places`, paths of directories. Requests that are not gRPC go to `fallback`.
    """
    methods: dict[str, Method] = bulk_methods(store.blobs, max_message)
    methods |= granular_methods(granular_of(store), max_message)
    methods |= bulk_path_info_methods(store.path_infos)
    if store.deltas is not None:
        methods |= delta_methods(store.deltas)
    methods |= settings_methods(StoreSettings(store.size_rule, store.store_dir, BULK_VERSION))
    methods |= chunk_store_methods(store.blobs, store.assembling)
    own = [BULK_SERVICE, SETTINGS_SERVICE, CHUNK_STORE_SERVICE, BLOB_STORE_SERVICE]
    if store.statistics is not None:
        methods |= statistics_methods(store.statistics)
        own.append(STATISTICS_SERVICE)
    for dialect in DIALECTS:
        methods |= blob_methods(store.blobs, store.known_nars, dialect, max_message)
        methods |= directory_methods(store.directories, dialect, max_message)
        methods |= path_info_methods(store.path_infos, store.nar, dialect)
    checks = store.service_checks or ServiceChecks(store.check, store.check, store.check)
    check_by_name = {name: check for dialect in DIALECTS for name, check in zip(dialect.services, checks, strict=True)}
    health = Health(check_by_name | dict.fromkeys(own, checks.blobs))
    methods |= health.methods()
    methods |= reflection_methods([*check_by_name, *own, HEALTH_SERVICE])
    app = RpcApp(
        methods, fallback, max_message=max_message, read_only=store.read_only, traffic=traffic, private_places=private_places
    )
    return app, health

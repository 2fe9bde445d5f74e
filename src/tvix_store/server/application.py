"""The application of a worker: its stores, behind the layers that the operator has asked for.

From the outside, the layers count a request, hold web pages back, and find the client's name and rights. Then they keep the client
to its share, and find the cache that it means. A layer that has nothing to do is not there.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field

from tvix_store.access.gate import Gate
from tvix_store.asgi import App
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.layers.without_upstreams import without_upstreams
from tvix_store.observe.access_log import AccessLog
from tvix_store.observe.metrics import Metrics
from tvix_store.observe.probes import Probes
from tvix_store.observe.requests import ObservedRequests
from tvix_store.observe.store_gauges import StoreGauges
from tvix_store.rpc.asgi import RpcApp
from tvix_store.rpc.health import Health
from tvix_store.rpc.services import serve_store
from tvix_store.server.browser_guard import BrowserGuard
from tvix_store.server.forwarded import Forwarded
from tvix_store.server.limits import ClientLimits
from tvix_store.server.listeners import host_names
from tvix_store.server.named_caches import NamedCaches, ServedCache
from tvix_store.server.push_route import PushRoute
from tvix_store.server.settings import ServerConfig
from tvix_store.services.store import Store
from tvix_store.telemetry.shared import SharedRows
from tvix_store.traffic import Traffic


@dataclass(slots=True)
class Application:
    """The applications of some stores that share the traffic of a worker."""

    config: ServerConfig
    traffic: Traffic
    counts: SharedRows
    _healths: list[Health] = field(default_factory=list)

    async def open(self, store: Store, sockets: Sequence[socket.socket], opened: AsyncExitStack) -> App:
        """All of it: `store`, and the named caches beside it, which stay open until `opened` ends.

        Raises:
            StoreError: a cache cannot be opened, or a file of settings cannot be read.
        """
        config = self.config
        root, calls = self._serve(store, config.cache)
        app = root
        if config.caches:
            caches = {
                each.name: ServedCache(
                    self._serve(await opened.enter_async_context(await each.open_store()), each.cache)[0], each.private
                )
                for each in config.caches
            }
            app = NamedCaches(root, caches, config.default_cache)
        metrics = Metrics(self.counts)
        gauges = await opened.enter_async_context(aclosing(StoreGauges(store.statistics, config.directories, metrics)))
        app = Probes(app, metrics, gauges, self._are_serving, whole_store_only=bool(config.caches))
        if config.limits.are_set:
            writing = {path for path, method in calls.methods.items() if method.takes.writes}
            app = ClientLimits(app, config.limits, writing, self.traffic.hang_up)
        if config.access.asks:
            app = Gate(app, config.access.authority(), [each.name for each in config.caches])
        if config.trusted_proxies:
            app = Forwarded(app, config.trusted_proxies)
        names = (*host_names(config.listen), *config.allow_hosts)
        # With TLS, browsers themselves see by the certificate that a name is not ours.
        guarded = BrowserGuard(app, [] if config.tls else sockets, names, config.allow_origins)
        log = AccessLog(sys.stderr, config.access_log) if config.access_log else None
        traced = opened.enter_context(_traced(guarded, wanted=config.traces))
        return ObservedRequests(traced, calls.methods, log)

    def stop(self) -> None:
        """To be called when the server begins to go down."""
        for health in self._healths:
            health.stop()

    async def _are_serving(self) -> bool:
        return all(await asyncio.gather(*(health.is_serving() for health in self._healths)))

    def _serve(self, store: Store, settings: CacheSettings) -> tuple[App, RpcApp]:
        """The application of a store, and the part of it that knows all calls."""
        app = self._made(store, settings)
        alone = without_upstreams(store)
        return PushRoute(app, app if alone is store else self._made(alone, settings)), app

    def _made(self, store: Store, settings: CacheSettings) -> RpcApp:
        cache = BinaryCache(store, settings, self.traffic)
        app, health = serve_store(
            store,
            max_message=self.config.max_message,
            fallback=cache,
            traffic=self.traffic,
            private_places=settings.private_places,
        )
        self._healths.append(health)
        return app


@contextmanager
def _traced(app: App, *, wanted: bool) -> Iterator[App]:
    """`app`, with a span for each request where that is wanted. The last spans are sent at the end."""
    if not wanted:
        yield app
        return
    from tvix_store.observe.traces import TracedRequests

    traced = TracedRequests(app)
    try:
        yield traced
    finally:
        traced.close()

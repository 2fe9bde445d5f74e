"""The application of a worker: its stores, behind the layers that the operator has asked for.

From the outside: what web pages may do, who a client is, what it may do, what its share is, and which cache it means. A layer that
has nothing to do is not there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tvix_store.access.gate import Gate
from tvix_store.asgi import App
from tvix_store.http.app import BinaryCache
from tvix_store.http.settings import CacheSettings
from tvix_store.rpc.asgi import RpcApp
from tvix_store.rpc.services import serve_store
from tvix_store.server.browser_guard import BrowserGuard
from tvix_store.server.forwarded import Forwarded
from tvix_store.server.limits import ClientLimits
from tvix_store.server.listeners import host_names
from tvix_store.server.named_caches import NamedCaches, ServedCache
from tvix_store.server.settings import ServerConfig
from tvix_store.services.store import Store
from tvix_store.traffic import Traffic


@dataclass(slots=True)
class Application:
    """The applications of some stores that share the traffic of a worker."""

    config: ServerConfig
    traffic: Traffic
    _stops: list[Callable[[], None]] = field(default_factory=list)

    async def open(self, store: Store, sockets: Sequence[socket.socket], opened: AsyncExitStack) -> App:
        """All of it: `store`, and the named caches beside it, which stay open until `opened` ends.

        Raises:
            StoreError: a cache cannot be opened, or a file of settings cannot be read.
        """
        config = self.config
        root = self._serve(store, config.cache)
        app: App = root
        if config.caches:
            caches = {
                each.name: ServedCache(
                    self._serve(await opened.enter_async_context(await each.open_store()), each.cache), each.private
                )
                for each in config.caches
            }
            app = NamedCaches(root, caches, config.default_cache)
        if config.limits.are_set:
            writing = {path for path, method in root.methods.items() if method.takes.writes}
            app = ClientLimits(app, config.limits, writing, self.traffic.hang_up)
        if config.access.asks:
            app = Gate(app, config.access.authority())
        if config.trusted_proxies:
            app = Forwarded(app, config.trusted_proxies)
        names = (*host_names(config.listen), *config.allow_hosts)
        # With TLS, browsers themselves see by the certificate that a name is not ours.
        return BrowserGuard(app, [] if config.tls else sockets, names, config.allow_origins)

    def stop(self) -> None:
        """To be called when the server begins to go down."""
        for stop in self._stops:
            stop()

    def _serve(self, store: Store, settings: CacheSettings) -> RpcApp:
        cache = BinaryCache(store, settings, self.traffic)
        app, stop = serve_store(store, max_message=self.config.max_message, fallback=cache, traffic=self.traffic)
        self._stops.append(stop)
        return app

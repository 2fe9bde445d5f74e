"""The adapter to the engine `h2corn`: listeners, worker processes, shutdown. No other room knows the engine."""

from tvix_store.http.settings import CacheSettings
from tvix_store.server.mounting import asgi_app
from tvix_store.server.settings import ServerConfig
from tvix_store.server.supervisor import serve

__all__ = ["CacheSettings", "ServerConfig", "asgi_app", "serve"]

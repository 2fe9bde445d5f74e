"""The adapter to the engine `h2corn`: listeners, worker processes, shutdown. No other room knows the engine."""

from tvix_store.server.settings import ServerConfig
from tvix_store.server.supervisor import serve

__all__ = ["ServerConfig", "serve"]

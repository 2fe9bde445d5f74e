"""From addresses to stores: the only room that knows all backends."""

from tvix_store.config.compose import open_store, prepare_for_crew, read_only, verified

__all__ = ["open_store", "prepare_for_crew", "read_only", "verified"]

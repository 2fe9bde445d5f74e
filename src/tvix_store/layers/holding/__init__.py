"""A named cache: its own paths and records, and of a store's content the part that was sent to it. See docs/design/access.md."""

from tvix_store.layers.holding.cache import named_cache

__all__ = ["named_cache"]

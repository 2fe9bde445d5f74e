"""A named cache: its own paths and records, and of a store's content the part that was sent to it.

See docs/design/named-caches.md.
"""

from tvix_store.layers.holding.cache import named_cache
from tvix_store.layers.holding.retention import RetentionTerms

__all__ = ["RetentionTerms", "named_cache"]

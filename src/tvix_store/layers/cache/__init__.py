"""A cache: a store that is near, with room for a part, before one that is far and has all. See docs/design/cache.md."""

from tvix_store.layers.cache.cached import cached
from tvix_store.layers.cache.disk_near import DiskNear
from tvix_store.layers.cache.memory_near import MemoryNear

__all__ = ["DiskNear", "MemoryNear", "cached"]

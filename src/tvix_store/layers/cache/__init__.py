"""A cache: a store that is near, with room for a part, before one that is far and has all. See docs/design/cache.md."""

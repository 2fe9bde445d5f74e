"""Trees in a store: walking them, and finding what stands at a path."""

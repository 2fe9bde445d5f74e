"""Trees in a store: walking them, and looking up the node at a path."""

"""Collection: content that no path needs is deleted, and its space given back. See docs/design/collection.md."""

"""The layout of snix: an object for each chunk, for each blob, and for each tree of directories."""

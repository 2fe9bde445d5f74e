"""What comes in: trees of a file system, and NARs."""

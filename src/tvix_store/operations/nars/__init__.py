"""NARs of what is stored: rendered, measured, planned, and found by their hashes."""

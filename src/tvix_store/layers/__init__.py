"""Services over other services."""

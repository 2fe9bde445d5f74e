"""tvix-store: a granular content-addressed store for Nix."""

__version__ = "0.1.0"

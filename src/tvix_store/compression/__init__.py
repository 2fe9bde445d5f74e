"""Nix's compressions of NARs by name, as bounded incremental decompressors. Pure: no I/O, no event loop."""

from tvix_store.compression.decompressor import (
    MAX_OUTPUT,
    MAX_PIECE,
    MAX_RATIO,
    MAX_WINDOW,
    NARROW_WINDOW,
    RATIO_FROM,
    WINDOWS,
    Decompressor,
    WindowError,
)
from tvix_store.compression.table import COMPRESSIONS, DETECT, SUFFIXES, Compression, decompressor, of_suffix

__all__ = [
    "COMPRESSIONS",
    "DETECT",
    "MAX_OUTPUT",
    "MAX_PIECE",
    "MAX_RATIO",
    "MAX_WINDOW",
    "NARROW_WINDOW",
    "RATIO_FROM",
    "SUFFIXES",
    "WINDOWS",
    "Compression",
    "Decompressor",
    "WindowError",
    "decompressor",
    "of_suffix",
]

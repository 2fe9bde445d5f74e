"""The compressions by Nix's names and by the suffixes of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tvix_store.compression import formats
from tvix_store.compression.decompressor import MAX_OUTPUT, MAX_RATIO, MAX_WINDOW, RATIO_FROM, Decompressor, Limited
from tvix_store.compression.detect import Detecting
from tvix_store.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Compression:
    """How to decompress, and the suffix that Nix gives to files: most have none, and are told by their first bytes."""

    open: Callable[[int], Decompressor]
    suffix: str = ""


DETECT = "detect"
"""A name of our own for the compression that the first bytes show."""

COMPRESSIONS: Mapping[str, Compression] = MappingProxyType(
    {
        "none": Compression(formats.Uncompressed),
        "gzip": Compression(formats.gzip),
        "bzip2": Compression(formats.bzip2, ".bz2"),
        "xz": Compression(formats.xz, ".xz"),
        "zstd": Compression(formats.zstd, ".zst"),
        "br": Compression(formats.Brotli, ".br"),
        "lz4": Compression(formats.lz4, ".lz4"),
        "lzip": Compression(formats.lzip, ".lzip"),
        "lzma": Compression(formats.lzma_alone),
    }
)
"""By the name in `Compression:` of a NARInfo and in `?compression=`. Left out are compress, grzip, lrzip and lzop,
which Nix can send too: nobody keeps up a library for them that could be installed from wheels."""

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        "": DETECT,
        **{compression.suffix: name for name, compression in COMPRESSIONS.items() if compression.suffix},
        ".gz": "gzip",  # what others than Nix write
        ".lz": "lzip",
        ".lzma": "lzma",
    }
)
"""Names, or DETECT, by the suffix behind `.nar` in the name of a file."""


def of_suffix(suffix: str) -> str:
    """The name for `decompressor` of a file called `<hash>.nar<suffix>`.

    Raises:
        UnsupportedError: no compression has this suffix; the error names those that are known.
    """
    try:
        return SUFFIXES[suffix]
    except KeyError:
        raise UnsupportedError(
            f"no known compression has the suffix {suffix[:20]!r} (known: {', '.join(filter(None, SUFFIXES))}, or none)"
        ) from None


def decompressor(
    name: str,
    *,
    max_ratio: int = MAX_RATIO,
    max_output: int = MAX_OUTPUT,
    ratio_from: int = RATIO_FROM,
    max_window: int = MAX_WINDOW,
) -> Decompressor:
    """A decompressor for Nix's compression `name`, or for the one that the first bytes show (DETECT).

    It gives out at most `max_output` bytes, and beyond `ratio_from` bytes at most `max_ratio` for each byte of its input.
    A stream that wants more than `max_window` bytes of history kept ends in WindowError.

    Raises:
        UnsupportedError: the compression is unknown or left out; the error names those that are known.
    """
    opened = Detecting(lambda found: _open(found, max_window)) if name == DETECT else _open(name, max_window)
    return Limited(opened, name, max_ratio=max_ratio, max_output=max_output, ratio_from=ratio_from)


def _open(name: str, max_window: int) -> Decompressor:
    try:
        compression = COMPRESSIONS[name]
    except KeyError:
        raise UnsupportedError(f"compression {name[:20]!r} is not supported (known: {', '.join(COMPRESSIONS)})") from None
    return compression.open(max_window)

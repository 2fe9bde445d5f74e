"""Compressed NARs of one large file each, as `nix copy` puts them, made without the minutes that xz takes for a GiB."""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tvix_store.model import nixbase32
from tvix_store.nar import FileData, FileEnd, FileStart, NarWriter

_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Way:
    """How a piece is compressed; with `repeated`, a file's pieces are all the same."""

    suffix: str
    compress: Callable[[bytes], bytes]
    repeated: bool = False


def _xz(data: bytes) -> bytes:
    """With the dictionary that xz has unless told otherwise, which is what costs memory, and as little search as there can be."""
    return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 8 << 20}])


_WAYS = {
    "none": _Way("", bytes),
    "zstd": _Way(".zst", lambda data: zstandard.compress(data, 1)),
    "xz": _Way(".xz", _xz, repeated=True),
}


def write_nar(compression: str, size: int, directory: Path) -> tuple[Path, str]:
    """Write the NAR of a file of `size` random bytes (whole pieces); the file, and its name in a cache. Each piece is a frame."""
    way = _WAYS[compression]
    piece_size = min(_PIECE, size // 8)
    assert size % piece_size == 0
    writer = NarWriter()
    hashed = hashlib.sha256()
    path = directory / os.urandom(8).hex()
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            hashed.update(data)
            file.write(data)

        write(way.compress(writer.send(FileStart(size, executable=False))))
        compressed = b""
        for _ in range(size // piece_size):
            piece = writer.send(FileData(os.urandom(piece_size)))
            if not (compressed and way.repeated):
                compressed = way.compress(piece)
            write(compressed)
        write(way.compress(writer.send(FileEnd())))
    return path, f"{nixbase32.encode(hashed.digest())}.nar{way.suffix}"

"""The compression of a stream, by its first bytes: Nix names some files without saying how they are compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tvix_store.compression.decompressor import Decompressor
from tvix_store.errors import InvalidError

_HEAD = 8
"""Bytes that tell: as many as a NAR's first word has for its length, 13."""
_SIGNATURES = {
    b"\x0d\0\0\0\0\0\0\0": "none",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"\x5d\0\0": "lzma",  # its usual parameters, and a dictionary of whole 64 KiB
    b"\x1f\x9d": "compress",
    b"GRZipII": "grzip",
    b"LRZI": "lrzip",
    b"\x89LZO": "lzop",
}


class Detecting:
    """Decompresses with the decompressor that `opened` gives for the compression that the first bytes show. Brotli shows in
    none."""

    def __init__(self, opened: Callable[[str], Decompressor]) -> None:
        self._opened = opened
        self._head = b""
        self._inner: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inner is None:
            data = self._head + data
            if len(data) < _HEAD:
                self._head = data
                return
            self._inner = self._opened(detect(data))
        yield from self._inner.feed(data)

    def finish(self) -> None:
        if self._inner is None:
            raise InvalidError(f"the NAR is cut short: {len(self._head)} bytes are not enough to tell what it is")
        self._inner.finish()


def detect(data: bytes, what: str = "a NAR") -> str:
    """The name of the compression, "none" for a NAR, by the first 8 bytes of a file, which should hold `what`.

    Raises:
        InvalidError: they show neither.
    """
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    raise InvalidError(f"neither {what} nor a known compression of one: the first bytes are {data[:_HEAD]!r}")

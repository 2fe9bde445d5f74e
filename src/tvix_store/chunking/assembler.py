"""BlobAssembler: from the bytes of a blob to its chunks, their digests, and its own digest.

Every backend that keeps chunks uses this. It does no input or output: a backend takes the chunks and keeps the list as it likes.
"""

from __future__ import annotations

from typing import TypeAlias

from blake3 import blake3

from tvix_store.chunking.cutter import Cutter, cut
from tvix_store.chunking.sizes import DEFAULT_SIZES, ChunkSizes

CutChunk: TypeAlias = tuple[bytes, bytes | memoryview]
"""A chunk: its digest (32 bytes) and its content."""


class BlobAssembler:
    """Makes chunks of one blob that comes in pieces. `feed` and `finish` return the chunks in order.

    A blob has one chunk or more. With one, the chunk is the blob, and has its digest; that of the empty blob is empty. A blob of
    several chunks needs a list of their digests and sizes. A chunk is a view: see `Cutter` for what it keeps alive.
    """

    def __init__(self, sizes: ChunkSizes = DEFAULT_SIZES) -> None:
        self._hasher = blake3()
        self._cutter = Cutter(sizes)
        self._began = False

    def feed(self, data: bytes | memoryview) -> list[CutChunk]:
        """Take the next piece, whose bytes must not change any more. Return the chunks that are certain by now."""
        self._hasher.update(data)
        chunks: list[CutChunk] = [(blake3(chunk).digest(), chunk) for chunk in self._cutter.feed(data)]
        self._began = self._began or bool(chunks)
        return chunks

    def finish(self) -> list[CutChunk]:
        """Return the last chunks of the blob."""
        return _chunks(self.digest, self._cutter.finish(), began=self._began)

    @property
    def digest(self) -> bytes:
        """The digest (32 bytes) of all bytes so far."""
        return self._hasher.digest()


def cut_blob(blob: bytes, sizes: ChunkSizes = DEFAULT_SIZES) -> tuple[bytes, list[CutChunk]]:
    """The digest (32 bytes) of a whole blob, and its chunks, as of a BlobAssembler."""
    digest = blake3(blob).digest()
    if len(blob) <= sizes.minimum:  # most files
        return digest, [(digest, blob)]
    return digest, _chunks(digest, cut(blob, sizes), began=False)


def _chunks(blob: bytes, last: list[memoryview], *, began: bool) -> list[CutChunk]:
    """The last chunks of the blob with digest `blob`; `began` tells that others came before."""
    if not began and len(last) < 2:  # the blob is its own only chunk, and is not hashed twice
        return [(blob, last[0] if last else b"")]
    return [(blake3(chunk).digest(), chunk) for chunk in last]
